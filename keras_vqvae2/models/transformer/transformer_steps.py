from typing import Any

from keras import ops

from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Tensor, TensorTree
from keras_vqvae2.models.transformer.transformer_layers import grid


class TransformerSteps(Steps):
    """`TransformerPrior`, one position after the other: keys and values are remembered.

    Args:
        prior: The `TransformerPrior`.
    """

    def __init__(self, prior: Any) -> None:
        self.rows, self.columns = prior.code_shape
        self.sequence = prior.get_layer("sequence")
        self.blocks = [prior.get_layer(f"block_{i}") for i in range(prior.num_layers)]
        # Token i is code i - 1, and turns by where that code stands.
        self.positions = grid(prior.code_shape, tokens_before=1)[:-1]
        self.norm, self.logits = prior.get_layer("norm"), prior.get_layer("logits")

    def cache(self, batch: int) -> TensorTree:
        return {
            "code": ops.zeros((batch,), "int32"),  # the one before
            "blocks": [block._cache(batch, self.rows, self.columns) for block in self.blocks],
        }

    def weights(self) -> TensorTree:
        attention = self.blocks[0].attention
        return {
            "blocks": [block._step_weights() for block in self.blocks],
            "table": attention.rotary._table(self.positions, attention.depth),  # (N, d/2, 2)
        }

    def start_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        row: Tensor,
        condition: Tensor | None,
        labels: Tensor | None,
    ) -> tuple[TensorTree, TensorTree, TensorTree]:
        started = [
            block._start_row(cache, row) for block, cache in zip(self.blocks, state["blocks"])
        ]
        fixed, left = ([part[i] for part in started] for i in range(2))
        start = self.sequence._start(labels, state["code"])  # (B, C)
        columns = {} if condition is None else {"condition": condition}
        return (
            {"blocks": fixed, "start": start, "row": row},
            columns,
            {"code": state["code"], "blocks": left},
        )

    def step(
        self,
        weights: TensorTree,
        fixed: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
    ) -> tuple[Tensor, TensorTree, TensorTree]:
        index = fixed["row"] * self.columns + column
        x = self.sequence._step(index, fixed["start"], left["code"], columns.get("condition"))
        table = ops.take(weights["table"], index, axis=0)  # (d/2, 2)
        lefts = []
        for i, block in enumerate(self.blocks):
            x, block_left = block._step(
                weights["blocks"][i], fixed["blocks"][i], left["blocks"][i], column, x, table
            )
            lefts.append(block_left)
        return self.logits(self.norm(x)), {**left, "blocks": lefts}, ()

    def remember(
        self,
        weights: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
        features: TensorTree,
        codes: Tensor,
    ) -> tuple[TensorTree, TensorTree]:
        return {**left, "code": codes}, ()

    def finish_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        left: TensorTree,
        to_cache: TensorTree,
        row: Tensor,
        codes: Tensor,
    ) -> TensorTree:
        blocks = [
            block._finish_row(cache, block_left, row)
            for block, cache, block_left in zip(self.blocks, state["blocks"], left["blocks"])
        ]
        return {"code": left["code"], "blocks": blocks}
