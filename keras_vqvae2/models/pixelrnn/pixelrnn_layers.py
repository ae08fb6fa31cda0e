"""The parts of `PixelCNN` and `PixelRNN`: a first convolution, and three kinds of layers."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Shape, Tensor, TensorTree
from keras_vqvae2.layers import MaskedConv2D
from keras_vqvae2.models.pixelsnail.causal_block import shift_in

PACKAGE = "keras_vqvae2"


class ChainLayer(keras.layers.Layer):
    """A layer of a chain, which maps features of pixels to as many, for each group of colours.

    One position and colour after the other it is asked, for `ChainSteps`: `_cache` once,
    `_start_row` for each row, `_step` for each colour, `_remember` after a pixel's last colour,
    `_finish_row`. `known` is a list of the layer's inputs at a column, one for each colour so far;
    `inner` is what the layer itself keeps of them.

    Args:
        units: Features within the layer.
        colours: Groups of features, as in `MaskedConv2D`.
        residual: Whether inputs of `2 * units` features are added to what the layer makes of them,
            as in the paper; else inputs and outputs have `units` features.
    """

    def __init__(self, units: int, colours: int = 1, residual: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.colours = colours
        self.residual = residual

    def _conv(self, filters, kernel_size, shape, name, mask_type="B", gates=1):
        conv = MaskedConv2D(
            filters,
            kernel_size,
            mask_type,
            colours=self.colours,
            gates=gates,
            dtype=self.dtype_policy,
            name=name,
        )
        conv.build(shape)
        return conv

    def _point(self, conv, weights, known, colour):
        """A group of features of a 1x1 convolution, from the groups so far."""
        return conv._step_colour(weights, known[0][:, :0], weights["bias"][None], known, colour)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "colours": self.colours,
            "residual": self.residual,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class FirstConv(keras.layers.Layer):
    """The 7x7 convolution of mask A, and what a label adds to its features."""

    def __init__(
        self,
        units: int,
        kernel_size: int,
        colours: int = 1,
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.kernel_size = kernel_size
        self.colours = colours
        self.num_classes = num_classes

    def build(self, inputs_shape: Shape, labels_shape: Shape | None = None) -> None:
        self.conv = MaskedConv2D(
            self.units,
            self.kernel_size,
            "A",
            colours=self.colours,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.conv.build(inputs_shape)
        self.label_table: Any = None
        if labels_shape is not None:
            self.label_table = self.add_weight(
                name="label_table", shape=(self.num_classes, self.units), initializer="zeros"
            )

    def call(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.conv(inputs)
        return x if labels is None else x + self._label_rows(labels)[:, None, None]

    def _label_rows(self, labels):
        return ops.take(ops.cast(self.label_table, self.compute_dtype), labels, axis=0)

    def compute_output_spec(
        self, inputs: Tensor, labels: Tensor | None = None
    ) -> keras.KerasTensor:
        return keras.KerasTensor((*inputs.shape[:-1], self.units), self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_size": self.kernel_size,
            "colours": self.colours,
            "num_classes": self.num_classes,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class PixelCNNLayer(ChainLayer):
    """A convolution of mask B: in a residual block, or followed by a ReLU.

    ```
    residual:  x + expand (relu (conv (relu (reduce (relu (x))))))     1x1 to h, 3x3, 1x1 to 2 h
    else:      relu (conv (x))
    ```
    """

    def __init__(
        self,
        units: int,
        colours: int = 1,
        residual: bool = True,
        kernel_size: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, colours, residual, **kwargs)
        self.kernel_size = kernel_size

    def build(self, input_shape: Shape) -> None:
        inner = (*input_shape[:-1], self.units)
        self.conv = self._conv(self.units, self.kernel_size, inner, "conv")
        if self.residual:
            self.reduce = self._conv(self.units, 1, input_shape, "reduce")
            self.expand = self._conv(input_shape[-1], 1, inner, "expand")

    def call(self, inputs: Tensor) -> Tensor:
        if not self.residual:
            return ops.relu(self.conv(inputs))
        x = ops.relu(self.reduce(ops.relu(inputs)))
        return inputs + self.expand(ops.relu(self.conv(x)))

    def _step_weights(self) -> TensorTree:
        names = ("conv", "reduce", "expand") if self.residual else ("conv",)
        return {name: getattr(self, name)._step_weights() for name in names}

    def _cache(self, batch: int, columns: int) -> TensorTree:
        return self.conv._cache(batch, columns, self.units)

    def _start_row(
        self, weights: TensorTree, cache: TensorTree, row: Tensor
    ) -> tuple[TensorTree, TensorTree]:
        batch = cache.shape[0]
        above = self.conv._above(weights["conv"], cache)
        return above, self.conv._start(batch, self.units)

    def _step(
        self,
        weights: TensorTree,
        left: TensorTree,
        column: TensorTree,
        known: list[Tensor],
        inner: TensorTree,
        colour: int,
    ) -> tuple[Tensor, TensorTree]:
        x = known[-1]
        if self.residual:
            rectified = [ops.relu(part) for part in known]
            x = ops.relu(self._point(self.reduce, weights["reduce"], rectified, colour))
        before, after = inner if inner else ([], [])
        before = [*before, x]
        x = ops.relu(self.conv._step_colour(weights["conv"], left, column, before, colour))
        after = [*after, x]
        if self.residual:
            x = known[-1] + self._point(self.expand, weights["expand"], after, colour)
        return x, (before, after)

    def _remember(
        self, left: TensorTree, column: TensorTree, known: list[Tensor], inner: TensorTree
    ) -> tuple[TensorTree, TensorTree]:
        inputs = ops.concatenate(inner[0], axis=-1)  # (B, units)
        return ops.concatenate([left, inputs], axis=-1)[:, self.units :], inputs

    def _finish_row(
        self, weights: TensorTree, cache: TensorTree, to_cache: TensorTree, row: Tensor
    ) -> TensorTree:
        return shift_in(cache, to_cache)

    def get_config(self) -> Config:
        return {**super().get_config(), "kernel_size": self.kernel_size}


class LSTMLayer(ChainLayer):
    """What both kinds of LSTM share.

    ```
    [o, f, i, g] = input-to-state (x) + state-to-state (h before)       each gate has all colours
    c            = sigmoid(f) c before + sigmoid(i) tanh(g)
    h            = sigmoid(o) tanh(c)
    out          = x + expand (h)    residual,   else h
    ```

    Initial states are learned, one for each feature; with `row_states` one for each row too.
    """

    def __init__(
        self,
        units: int,
        colours: int = 1,
        residual: bool = True,
        row_states: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, colours, residual, **kwargs)
        self.row_states = row_states

    def _add_states(self, rows, prefix=""):
        shape = (rows, self.units) if self.row_states else (self.units,)
        return [
            self.add_weight(name=f"{prefix}initial_{name}", shape=shape, initializer="zeros")
            for name in ("hidden", "cell")
        ]

    def _cell(self, gates, before):
        """`(..., 4 n)` gates and the cell before, `(..., n)`, to hidden and cell."""
        o, f, i, g = ops.split(gates, 4, axis=-1)
        cell = ops.sigmoid(f) * before + ops.sigmoid(i) * ops.tanh(g)
        return ops.sigmoid(o) * ops.tanh(cell), cell

    def _outputs(self, inputs, hidden):
        return inputs + self.expand(hidden) if self.residual else hidden

    def _output(self, weights, known, hidden, colour):
        """The layer's output for a group of colours, from its hidden features so far."""
        if not self.residual:
            return hidden[-1]
        return known[-1] + self._point(self.expand, weights["expand"], hidden, colour)

    def _group(self, x, colour):
        """Of `(batch, units)` those of a group."""
        size = self.units // self.colours
        return x[:, colour * size : (colour + 1) * size]

    def get_config(self) -> Config:
        return {**super().get_config(), "row_states": self.row_states}


@keras.saving.register_keras_serializable(package=PACKAGE)
class RowLSTMLayer(LSTMLayer):
    """A row after the other: the state of a pixel comes from the three above it.

    Input-to-state is a convolution of 1 x 3, mask B; state-to-state one of 1 x 3 along the row
    above, without a mask or a bias. A pixel sees a triangle above itself: the paper's choice, and a
    blind spot to both sides.
    """

    def build(self, input_shape: Shape) -> None:
        self.input_to_state = self._conv(4 * self.units, (1, 3), input_shape, "input", gates=4)
        self.state_to_state = self.add_weight(
            name="state_to_state", shape=(1, 3, self.units, 4 * self.units)
        )
        self.initial = self._add_states(1)
        if self.residual:
            inner = (*input_shape[:-1], self.units)
            self.expand = self._conv(input_shape[-1], 1, inner, "expand")

    def _of_states(self, kernel, hidden):
        """State-to-state along a row: `(batch, W, units)` to `(batch, W, 4 units)`."""
        padded = ops.pad(hidden, ((0, 0), (1, 1), (0, 0)))
        width = hidden.shape[1]
        return sum(ops.matmul(padded[:, k : k + width], kernel[0, k]) for k in range(3))

    def _initial(self, batch, columns):
        shape = (batch, columns, self.units)
        states = (ops.reshape(ops.cast(x, self.compute_dtype), (-1,)) for x in self.initial)
        return tuple(ops.broadcast_to(state, shape) for state in states)

    def call(self, inputs: Tensor) -> Tensor:
        gates = self.input_to_state(inputs)  # (B, H, W, 4 units)
        kernel = ops.cast(self.state_to_state, self.compute_dtype)

        def turn(state, own):
            state = self._cell(own + self._of_states(kernel, state[0]), state[1])
            return state, state[0]

        start = self._initial(ops.shape(inputs)[0], inputs.shape[2])
        return self._outputs(inputs, scan_along(turn, start, gates, 1))

    def _step_weights(self) -> TensorTree:
        weights = {"input": self.input_to_state._step_weights()}
        weights["states"] = ops.cast(self.state_to_state, self.compute_dtype)
        if self.residual:
            weights["expand"] = self.expand._step_weights()
        return weights

    def _cache(self, batch: int, columns: int) -> TensorTree:
        return self._initial(batch, columns)

    def _start_row(
        self, weights: TensorTree, cache: TensorTree, row: Tensor
    ) -> tuple[TensorTree, TensorTree]:
        hidden, cell = cache
        above = self._of_states(weights["states"], hidden) + weights["input"]["bias"]
        channels = self.input_to_state.kernel.shape[2]
        return (above, cell), self.input_to_state._start(hidden.shape[0], channels)

    def _step(
        self,
        weights: TensorTree,
        left: TensorTree,
        column: TensorTree,
        known: list[Tensor],
        inner: TensorTree,
        colour: int,
    ) -> tuple[Tensor, TensorTree]:
        above, before = column
        gates = self.input_to_state._step_colour(weights["input"], left, above, known, colour)
        hidden, cell = self._cell(gates, self._group(before, colour))
        hiddens, cells = inner if inner else ([], [])
        hiddens, cells = [*hiddens, hidden], [*cells, cell]
        return self._output(weights, known, hiddens, colour), (hiddens, cells)

    def _remember(
        self, left: TensorTree, column: TensorTree, known: list[Tensor], inner: TensorTree
    ) -> tuple[TensorTree, TensorTree]:
        inputs = ops.concatenate(known, axis=-1)
        left = ops.concatenate([left, inputs], axis=-1)[:, inputs.shape[-1] :]
        return left, tuple(ops.concatenate(parts, axis=-1) for parts in inner)

    def _finish_row(
        self, weights: TensorTree, cache: TensorTree, to_cache: TensorTree, row: Tensor
    ) -> TensorTree:
        return tuple(to_cache)


@keras.saving.register_keras_serializable(package=PACKAGE)
class DiagonalBiLSTMLayer(LSTMLayer):
    """A diagonal after the other, from the left and from the right.

    The state of a pixel comes from the one beside it and the one above it. The map is skewed, each
    row a column further to the right than the one above, so that a diagonal is a column; from the
    right the same happens to the mirrored map. What comes from the right moves down a row before
    the two are added, so that no pixel sees what is to its right.

    One hole remains, in the paper's design too: a feature never holds its own pixel, and the map
    from the right is a row late, so `(i, j)` does not see pixel `(i - 1, W - 1)`, the last of the
    row above, unless the first convolution reaches it (`j >= W - 4` for 7x7).

    Input-to-state is a 1x1 convolution, mask B; state-to-state has two taps, of the row above and
    of the row itself, without a mask or a bias; each direction has its own.
    """

    def build(self, input_shape: Shape) -> None:
        rows = input_shape[1]
        for name in ("left", "right"):
            setattr(
                self,
                f"{name}_input",
                self._conv(4 * self.units, 1, input_shape, f"{name}_input", gates=4),
            )
            states = self.add_weight(
                name=f"{name}_state_to_state", shape=(2, self.units, 4 * self.units)
            )
            setattr(self, f"{name}_states", states)
            setattr(self, f"{name}_initial", self._add_states(rows, f"{name}_"))
        self.rows = rows
        if self.residual:
            inner = (*input_shape[:-1], self.units)
            self.expand = self._conv(input_shape[-1], 1, inner, "expand")

    def _part(self, direction, name):
        return getattr(self, f"{direction}_{name}")

    def _initial(self, direction, batch):
        shape = (batch, self.rows, self.units)
        states = (ops.cast(x, self.compute_dtype) for x in self._part(direction, "initial"))
        return tuple(ops.broadcast_to(state, shape) for state in states)

    def _advance(self, kernel, gates, state):
        """A column of the skewed map: gates `(B, H, 4 units)`, states `(B, H, units)`."""
        hidden, cell = state
        above = ops.pad(hidden[:, :-1], ((0, 0), (1, 0), (0, 0)))
        gates = gates + ops.matmul(above, kernel[0]) + ops.matmul(hidden, kernel[1])
        return self._cell(gates, cell)

    def _hidden(self, inputs, direction):
        conv = self._part(direction, "input")
        kernel = ops.cast(self._part(direction, "states"), self.compute_dtype)
        x = ops.flip(inputs, axis=2) if direction == "right" else inputs
        columns = x.shape[2]
        gates = conv(skew(x))  # (B, H, W + H - 1, 4 units), in the corners the bias

        def turn(state, own):
            state = self._advance(kernel, own, state)
            return state, state[0]

        start = self._initial(direction, ops.shape(inputs)[0])
        hidden = unskew(scan_along(turn, start, gates, 2), columns)  # (B, H, W, units)
        if direction == "left":
            return hidden
        hidden = ops.flip(hidden, axis=2)
        return ops.pad(hidden[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))

    def call(self, inputs: Tensor) -> Tensor:
        return self._outputs(inputs, self._hidden(inputs, "left") + self._hidden(inputs, "right"))

    # === One position after the other ===

    def _step_weights(self) -> TensorTree:
        weights: dict[str, Any] = {}
        for name in ("left", "right"):
            part = {
                "input": self._part(name, "input")._step_weights(),
                "states": ops.cast(self._part(name, "states"), self.compute_dtype),
            }
            part["start"] = self._states_before_rows(name, part)
            weights[name] = part
        # Of the map from the right whole rows are computed, all colours at once.
        kernel = self.right_input._masked_kernel()
        kernel = ops.cast(kernel, self.compute_dtype)
        weights["right"]["kernel"] = ops.reshape(kernel, (-1, 4 * self.units))
        if self.residual:
            weights["expand"] = self.expand._step_weights()
        return weights

    def _states_before_rows(self, direction, weights):
        """States before the first column of each row: those of the skewed map's corner.

        They depend on no pixel: the corner holds zeros, so its gates are biases.
        """
        bias = ops.broadcast_to(weights["input"]["bias"], (1, self.rows, 4 * self.units))
        state = self._initial(direction, 1)
        before = [[part[:, 0] for part in state]]
        for row in range(1, self.rows):
            state = self._advance(weights["states"], bias, state)
            before.append([part[:, row] for part in state])
        return tuple(ops.concatenate(parts, axis=0) for parts in zip(*before))  # (H, units)

    def _cache(self, batch: int, columns: int) -> TensorTree:
        """Hidden features of the row above, from the left and from the right."""
        zeros = ops.zeros((batch, columns, self.units), self.compute_dtype)
        return {"left": zeros, "right": zeros}

    def _before_row(self, weights, row, batch):
        states = (ops.take(part, row, axis=0) for part in weights["start"])
        return tuple(ops.broadcast_to(state, (batch, self.units)) for state in states)

    def _start_row(
        self, weights: TensorTree, cache: TensorTree, row: Tensor
    ) -> tuple[TensorTree, TensorTree]:
        left = weights["left"]
        above = ops.matmul(cache["left"], left["states"][0]) + left["input"]["bias"]
        return (above, cache["right"]), self._before_row(left, row, above.shape[0])

    def _step(
        self,
        weights: TensorTree,
        left: TensorTree,
        column: TensorTree,
        known: list[Tensor],
        inner: TensorTree,
        colour: int,
    ) -> tuple[Tensor, TensorTree]:
        above, right = column
        conv, part = self.left_input, weights["left"]
        hiddens, cells, sums, gates = inner if inner else ([], [], [], None)
        if gates is None:  # of all colours at once: states see all of those before
            gates = above + ops.matmul(left[0], part["states"][1])
        own = conv._step_colour(part["input"], left[0][:, :0], gates, known, colour)
        hidden, cell = self._cell(own, self._group(left[1], colour))
        sums = [*sums, hidden + self._group(right, colour)]
        inner = ([*hiddens, hidden], [*cells, cell], sums, gates)
        return self._output(weights, known, sums, colour), inner

    def _remember(
        self, left: TensorTree, column: TensorTree, known: list[Tensor], inner: TensorTree
    ) -> tuple[TensorTree, TensorTree]:
        hidden, cell = (ops.concatenate(parts, axis=-1) for parts in inner[:2])
        return (hidden, cell), (hidden, ops.concatenate(known, axis=-1))

    def _finish_row(
        self, weights: TensorTree, cache: TensorTree, to_cache: TensorTree, row: Tensor
    ) -> TensorTree:
        hidden, inputs = to_cache
        right = weights["right"]
        gates = ops.matmul(inputs, right["kernel"]) + right["input"]["bias"]
        gates = gates + ops.matmul(cache["right"], right["states"][0])  # (B, W, 4 units)

        def turn(state, gates):
            state = self._cell(gates + ops.matmul(state[0], right["states"][1]), state[1])
            return state, state[0]

        start = self._before_row(right, row, inputs.shape[0])
        from_right = ops.flip(ops.transpose(gates, (1, 0, 2)), axis=0)  # (W, B, 4 units)
        _, states = backend.scan(turn, start, from_right, from_right.shape[0])
        return {"left": hidden, "right": ops.transpose(ops.flip(states, axis=0), (1, 0, 2))}


def scan_along(turn: Callable[..., Any], start: TensorTree, x: Tensor, axis: int) -> Tensor:
    """What a loop with a state makes of the slices of a map along an axis, side by side."""
    order = [axis, *(i for i in range(len(x.shape)) if i != axis)]
    slices = ops.transpose(x, order)
    _, outputs = backend.scan(turn, start, slices, slices.shape[0])
    return ops.moveaxis(outputs, 0, axis)


def skew(x: Tensor) -> Tensor:
    """Moves row r to the right by r: `(batch, H, W, C)` to `(batch, H, W + H - 1, C)`."""
    rows, columns, channels = x.shape[1:]
    flat = ops.reshape(
        ops.pad(x, ((0, 0), (0, 0), (0, rows), (0, 0))), (-1, rows * (columns + rows), channels)
    )
    return ops.reshape(
        flat[:, : rows * (columns + rows - 1)], (-1, rows, columns + rows - 1, channels)
    )


def unskew(x: Tensor, columns: int) -> Tensor:
    """Undoes `skew` of a map of so many columns."""
    rows, channels = x.shape[1], x.shape[3]
    flat = ops.reshape(x, (-1, rows * (columns + rows - 1), channels))
    flat = ops.pad(flat, ((0, 0), (0, rows), (0, 0)))
    return ops.reshape(flat, (-1, rows, columns + rows, channels))[:, :, :columns]
