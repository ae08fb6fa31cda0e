from collections.abc import Callable, Sequence

import keras
from keras import ops

from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Tensor, TensorTree
from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn_layers import ColourHead
from keras_vqvae2.models.pixelrnn.pixelrnn_layers import ChainLayer, FirstConv
from keras_vqvae2.models.pixelsnail.causal_block import shift_in


class ChainSteps(Steps):
    """`PixelCNN` and `PixelRNN`, one pixel and colour after the other.

    Args:
        first: The `FirstConv`.
        layers: The `ChainLayer`s.
        head: The `ColourHead`.
        embed: From levels `(batch, ...)`, of all colours or one, to what the network sees of them.
        columns: Columns of the image.
        colour: The colour that is drawn.
    """

    def __init__(
        self,
        first: FirstConv,
        layers: Sequence[ChainLayer],
        head: ColourHead,
        embed: Callable[[Tensor], Tensor],
        columns: int,
        colour: int = 0,
    ) -> None:
        self.first, self.layers, self.head, self.embed = first, layers, head, embed
        self.columns, self.colour, self.colours = columns, colour, head.colours

    def weights(self) -> TensorTree:
        return {
            "first": self.first.conv._step_weights(),
            "layers": [layer._step_weights() for layer in self.layers],
            "head": self.head._step_weights(),
        }

    def cache(self, batch: int) -> TensorTree:
        return {
            "first": self.first.conv._cache(batch, self.columns, self.colours),
            "layers": [layer._cache(batch, self.columns) for layer in self.layers],
        }

    def start_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        row: Tensor,
        condition: Tensor | None,
        labels: Tensor | None,
    ) -> tuple[TensorTree, TensorTree, TensorTree]:
        above = self.first.conv._above(weights["first"], state["first"])
        if labels is not None:
            above = above + self.first._label_rows(labels)[:, None]
        started = [
            layer._start_row(layer_weights, cache, row)
            for layer, layer_weights, cache in zip(self.layers, weights["layers"], state["layers"])
        ]
        columns, left = ([part[i] for part in started] for i in range(2))
        first = self.first.conv._start(above.shape[0], self.colours)
        return (), {"first": above, "layers": columns}, {"first": first, "layers": left}

    def _of_column(self, columns):
        """This column's part of what `start_row` gave."""
        if self.colours == 1:
            return columns
        return keras.tree.map_structure(lambda x: x[:, 0], columns)

    def step(
        self,
        weights: TensorTree,
        fixed: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
    ) -> tuple[Tensor, TensorTree, TensorTree]:
        if not self.colour:
            count = len(self.layers)
            left = {
                **left,
                "pixel": [],
                "known": [[] for _ in range(count)],
                "inner": [()] * count,
                "head": [[] for _ in self.head.convs],
            }
        own = self._of_column(columns)
        x = self.first.conv._step_colour(
            weights["first"], left["first"], own["first"], left["pixel"], self.colour
        )
        knowns, inners = [], []
        for i, layer in enumerate(self.layers):
            known = [*left["known"][i], x]
            x, inner = layer._step(
                weights["layers"][i],
                left["layers"][i],
                own["layers"][i],
                known,
                left["inner"][i],
                self.colour,
            )
            knowns.append(known)
            inners.append(inner)
        logits, head = self.head._step(weights["head"], left["head"], x, self.colour)
        return logits, {**left, "known": knowns, "inner": inners, "head": head}, ()

    def remember(
        self,
        weights: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
        features: TensorTree,
        codes: Tensor,
    ) -> tuple[TensorTree, TensorTree]:
        pixel = [*left["pixel"], self.embed(codes)]
        if self.colour + 1 < self.colours:
            return {**left, "pixel": pixel}, ()
        own = self._of_column(columns)
        kept = [
            layer._remember(*parts)
            for layer, *parts in zip(
                self.layers, left["layers"], own["layers"], left["known"], left["inner"]
            )
        ]
        lefts, to_cache = ([part[i] for part in kept] for i in range(2))
        first = ops.concatenate([left["first"], *pixel], axis=-1)[:, self.colours :]
        return {"first": first, "layers": lefts}, to_cache

    def finish_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        left: TensorTree,
        to_cache: TensorTree,
        row: Tensor,
        codes: Tensor,
    ) -> TensorTree:
        kept = to_cache if self.colours == 1 else to_cache[-1]
        layers = [
            layer._finish_row(layer_weights, cache, rows, row)
            for layer, layer_weights, cache, rows in zip(
                self.layers, weights["layers"], state["layers"], kept
            )
        ]
        inputs = ops.reshape(self.embed(codes), (-1, self.columns, self.colours))
        return {"first": shift_in(state["first"], inputs), "layers": layers}
