from collections.abc import Callable, Sequence

from keras import ops

from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Tensor, TensorTree
from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn_layers import ColourHead, GatedPixelCNNLayer
from keras_vqvae2.models.pixelsnail.causal_block import shift_in


class GatedPixelCNNSteps(Steps):
    """Both stacks of a Gated PixelCNN, one position and colour after the other.

    The vertical stack is computed a row at a time, the horizontal one a column at a time, and of a
    column only the features of the colour that is to be drawn.

    Args:
        layers: The `GatedPixelCNNLayer`s.
        head: The `ColourHead`.
        embed: From codes `(batch, ...)`, of all colours or one, to what the network sees of them.
        columns: Columns of the map.
        channels: What `embed` makes of a position.
        colour: The colour that is drawn. Codes are integers, with colours one for each.
    """

    def __init__(
        self,
        layers: Sequence[GatedPixelCNNLayer],
        head: ColourHead,
        embed: Callable[[Tensor], Tensor],
        columns: int,
        channels: int,
        colour: int = 0,
    ) -> None:
        self.layers, self.head, self.embed = layers, head, embed
        self.columns, self.channels, self.colour = columns, channels, colour
        self.colours = head.colours

    def weights(self) -> TensorTree:
        return {
            "layers": [layer._step_weights() for layer in self.layers],
            "head": self.head._step_weights(),
        }

    def _channels(self):
        return [self.channels, *(layer.units for layer in self.layers[:-1])]

    def cache(self, batch: int) -> TensorTree:
        pairs = zip(self.layers, self._channels())
        return [layer._cache(batch, self.columns, channels) for layer, channels in pairs]

    def start_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        row: Tensor,
        condition: Tensor | None,
        labels: Tensor | None,
    ) -> tuple[TensorTree, TensorTree, TensorTree]:
        vertical, columns, above, left = None, [], [], []
        for layer, layer_weights, cache in zip(self.layers, weights["layers"], state):
            vertical, column, cache = layer._start_row(
                layer_weights, cache, vertical, condition, labels
            )
            columns.append(column)
            above.append(cache)
        for layer, channels in zip(self.layers, self._channels()):
            left.append(layer.horizontal._start(columns[0].shape[0], channels))
        return (), columns, {"left": left, "above": above[1:]}

    def step(
        self,
        weights: TensorTree,
        fixed: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
    ) -> tuple[Tensor, TensorTree, TensorTree]:
        several = self.colours > 1
        if not self.colour:
            empty: list = [[] for _ in self.layers]
            left = {**left, "known": empty, "hidden": empty, "head": [[] for _ in self.head.convs]}
        known, hidden = [left["known"][0]], []
        x = None
        for i, layer in enumerate(self.layers):
            if x is not None:
                known.append([*left["known"][i], x])
            x, gated = layer._step(
                weights["layers"][i],
                left["left"][i],
                columns[i][:, 0] if several else columns[i],
                known[i],
                left["hidden"][i],
                self.colour,
            )
            hidden.append(gated)
        logits, head = self.head._step(weights["head"], left["head"], x, self.colour)
        return logits, {**left, "known": known, "hidden": hidden, "head": head}, ()

    def remember(
        self,
        weights: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
        features: TensorTree,
        codes: Tensor,
    ) -> tuple[TensorTree, TensorTree]:
        known = [[*left["known"][0], self.embed(codes)], *left["known"][1:]]
        if self.colour + 1 < self.colours:
            return {**left, "known": known}, ()
        lefts = []
        for before, parts in zip(left["left"], known):
            width = sum(part.shape[-1] for part in parts)
            lefts.append(ops.concatenate([before, *parts], axis=-1)[:, width:])
        return {"left": lefts, "above": left["above"]}, ()

    def finish_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        left: TensorTree,
        to_cache: TensorTree,
        row: Tensor,
        codes: Tensor,
    ) -> TensorTree:
        inputs = ops.reshape(self.embed(codes), (-1, self.columns, self.channels))
        return [shift_in(state[0], inputs), *left["above"]]
