from typing import Any

from keras import ops

from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Tensor, TensorTree
from keras_vqvae2.models.pixelsnail.causal_block import shift_in


class PixelSnailSteps(Steps):
    """`PixelSnailPrior`, one position after the other.

    Args:
        prior: The `PixelSnailPrior`.
    """

    def __init__(self, prior: Any) -> None:
        def layer(name, wanted=True):
            return prior.get_layer(name) if wanted else None

        self.rows, self.columns = prior.code_shape
        self.units = prior.hidden_units
        self.first = layer("first")
        self.context = layer("row_context", prior.row_context)
        self.embedding = layer("embedding", prior.attention_heads and prior.attend_to_codes)
        self.planes = layer("position_planes")
        self.blocks = [layer(f"block_{i}") for i in range(prior.num_blocks)]
        self.output_stack = layer("output_stack")
        self.dtype = prior.compute_dtype

    def cache(self, batch: int) -> TensorTree:
        state = {
            "codes": self.first._cache(batch, self.columns),
            "blocks": [
                block._cache(batch, self.rows, self.columns, self.units) for block in self.blocks
            ],
        }
        if self.context is not None:
            # The first row has no row above it.
            state["context"] = ops.zeros((batch, self.columns, self.units), self.dtype)
        return state

    def weights(self) -> TensorTree:
        weights = {
            "first": self.first._step_weights(),
            "blocks": [block._step_weights() for block in self.blocks],
            "output_stack": self.output_stack._step_weights(),
            "planes": self.planes._planes(self.rows, self.columns),  # (H, W, 2)
        }
        if self.embedding is not None:
            embedding = self.embedding._step_weights()
            weights["embedding"] = embedding["tables"][0][0] + embedding["bias"]  # (K + 1, units)
        return weights

    def start_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        row: Tensor,
        condition: Tensor | None,
        labels: Tensor | None,
    ) -> tuple[TensorTree, TensorTree, TensorTree]:
        above = self.first._above(weights["first"], state["codes"])  # (B, W, C)
        if self.context is not None:
            above = above + state["context"]
        started = [
            block._start_row(block_weights, cache, row, condition, labels)
            for block, block_weights, cache in zip(self.blocks, weights["blocks"], state["blocks"])
        ]
        fixed, columns, left = ([part[i] for part in started] for i in range(3))
        background = ops.take(weights["planes"], row, axis=0)  # (W, 2)
        batch = above.shape[0]
        columns = {
            "above": above,
            "background": ops.broadcast_to(background, (batch, *background.shape)),
            "blocks": columns,
        }
        return fixed, columns, {"codes": self.first._start(batch), "blocks": left}

    def step(
        self,
        weights: TensorTree,
        fixed: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
    ) -> tuple[Tensor, TensorTree, TensorTree]:
        x = self.first._step(weights["first"], left["codes"], columns["above"])  # (B, C)
        lefts, features = [], []
        for i, block in enumerate(self.blocks):
            inputs = x
            x, inner, block_left, to_cache = block._step(
                weights["blocks"][i],
                fixed[i],
                columns["blocks"][i],
                left["blocks"][i],
                column,
                x,
                columns["background"],
            )
            lefts.append(block_left)
            features.append((inputs, inner, to_cache))
        logits = self.output_stack._point(weights["output_stack"], x)  # (B, K)
        return logits, {**left, "blocks": lefts}, features

    def remember(
        self,
        weights: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
        features: TensorTree,
        codes: Tensor,
    ) -> tuple[TensorTree, TensorTree]:
        raw = None
        if self.embedding is not None:
            raw = ops.take(weights["embedding"], codes + 1, axis=0)  # (B, units)
        lefts = [
            block._remember(
                weights["blocks"][i],
                left["blocks"][i],
                column,
                inputs if raw is None else raw,
                inner,
                columns["background"],
            )
            for i, (block, (inputs, inner, _)) in enumerate(zip(self.blocks, features))
        ]
        seen = ops.concatenate([left["codes"], codes[:, None]], axis=1)[:, 1:]  # (B, reach)
        return {"codes": seen, "blocks": lefts}, [to_cache for _, _, to_cache in features]

    def finish_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        left: TensorTree,
        to_cache: TensorTree,
        row: Tensor,
        codes: Tensor,
    ) -> TensorTree:
        finished = {
            "codes": shift_in(state["codes"], codes),
            "blocks": [
                block._finish_row(cache, block_left, rows, row)
                for block, cache, block_left, rows in zip(
                    self.blocks, state["blocks"], left["blocks"], to_cache
                )
            ],
        }
        if self.context is not None:
            finished["context"] = self.context._of_rows(codes[:, None])[:, 0]
        return finished
