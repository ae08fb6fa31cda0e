"""The parts of Gated PixelCNN: of `GatedPixelCNNPrior` over codes, and of `GatedPixelCNN`."""

from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Size, Tensor, TensorTree
from keras_vqvae2.layers import MaskedConv2D
from keras_vqvae2.validation import both_axes, check_positive

PACKAGE = "keras_vqvae2"


@keras.saving.register_keras_serializable(package=PACKAGE)
class VerticalConv2D(keras.layers.Layer):
    """A convolution of rows above, as far to the right as to the left: it has no blind spot.

    With `own_row` position `(i, j)` sees rows `i - rows // 2` to `i`, else those to `i - 1`; always
    columns `j - columns // 2` to `j + columns // 2`. `(batch, H, W, channels)` to `(batch, H, W,
    filters)`.
    """

    def __init__(self, filters: int, kernel_size: Size, own_row: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.own_row = own_row
        rows, columns = both_axes(kernel_size)
        if rows % 2 != 1 or columns % 2 != 1 or min(rows, columns) < 1 or rows // 2 + own_row < 1:
            raise ValueError(
                "Expected an odd integer or two of them, of a first layer at least 3 rows: it sees "
                f"those above. Received: kernel_size={kernel_size}"
            )
        self.rows, self.columns = rows // 2 + own_row, columns
        self.rows_cached = rows // 2

    def build(self, input_shape: Shape) -> None:
        shape = (self.rows, self.columns, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs: Tensor) -> Tensor:
        rows = inputs.shape[1]
        # One row too many where the last one is not seen.
        padded = ops.pad(inputs, ((0, 0), (self.rows_cached, 0), (0, 0), (0, 0)))
        return self._of_rows(padded[:, : rows + self.rows - 1])

    def _of_rows(self, inputs: Tensor) -> Tensor:
        """`(batch, rows + R - 1, W, channels)` to the R rows that see all of their kernel."""
        side = self.columns // 2
        padded = ops.pad(inputs, ((0, 0), (0, 0), (side, side), (0, 0)))
        kernel, bias = (ops.cast(w, self.compute_dtype) for w in (self.kernel, self.bias))
        return ops.conv(padded, kernel, padding="valid", data_format="channels_last") + bias

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((*inputs.shape[:-1], self.filters), self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "own_row": self.own_row,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class GatedPixelCNNLayer(keras.layers.Layer):
    """A layer of both stacks.

    ```
    told       = label table [label] + W condition
    above      = VerticalConv2D (vertical)
    vertical   = gate (above + told)                         gate (a, b) = tanh(a) sigmoid(b)
    hidden     = gate (MaskedConv2D of a row (horizontal) + W above + told)
    horizontal = W hidden [+ horizontal]
    ```

    The first layer sees only what comes before the position: rows above in the vertical stack, mask
    A in the horizontal one, and adds nothing to its result. So layers after it may look at their
    own row of the vertical stack.

    Args:
        units: Features of each stack.
        kernel_size: Odd integer, or `(rows, columns)`.
        first: Whether it is the first layer.
        colours: Groups of features of the horizontal stack, as in `MaskedConv2D`.
        num_classes: None, or the number of labels.

    Call arguments:
        vertical: `(batch, rows, columns, channels)`.
        horizontal: Likewise.
        condition: None, or `(batch, rows, columns, features)`.
        labels: None, or int32 of shape `(batch,)`.

    Returns:
        A tuple `(vertical, horizontal)`, each `(batch, rows, columns, units)`.
    """

    def __init__(
        self,
        units: int,
        kernel_size: Size,
        first: bool = False,
        colours: int = 1,
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.kernel_size = kernel_size
        self.first = first
        self.colours = colours
        self.num_classes = num_classes

    def build(
        self,
        vertical_shape: Shape,
        horizontal_shape: Shape,
        condition_shape: Shape | None = None,
        labels_shape: Shape | None = None,
    ) -> None:
        dtype, units = self.dtype_policy, self.units
        size = self.kernel_size
        columns = both_axes(size)[1]
        self.vertical = VerticalConv2D(
            2 * units, size, own_row=not self.first, dtype=dtype, name="vertical"
        )
        self.vertical.build(vertical_shape)
        self.to_horizontal = keras.layers.Dense(2 * units, dtype=dtype, name="to_horizontal")
        self.to_horizontal.build((*vertical_shape[:-1], 2 * units))
        self.horizontal = MaskedConv2D(
            2 * units,
            (1, columns),
            "A" if self.first else "B",
            colours=self.colours,
            gates=2,
            dtype=dtype,
            name="horizontal",
        )
        self.horizontal.build(horizontal_shape)
        self.output_conv = MaskedConv2D(
            units, 1, colours=self.colours, dtype=dtype, name="output_conv"
        )
        self.output_conv.build((*horizontal_shape[:-1], units))
        self.condition_projection: Any = None
        self.label_table: Any = None
        if condition_shape is not None:
            self.condition_projection = keras.layers.Dense(
                2 * units, use_bias=False, dtype=dtype, name="condition_projection"
            )
            self.condition_projection.build(condition_shape)
        if labels_shape is not None:
            self.label_table = self.add_weight(
                name="label_table", shape=(self.num_classes, 2 * units), initializer="zeros"
            )

    def call(
        self,
        vertical: Tensor,
        horizontal: Tensor,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        told = self._told(condition, labels, 2)
        above = self.vertical(vertical)
        hidden = gate(self.horizontal(horizontal) + self.to_horizontal(above) + told)
        outputs = self.output_conv(hidden)
        return gate(above + told), outputs if self.first else horizontal + outputs

    def _told(self, condition, labels, axes):
        """What label and coarser levels add to maps (2 axes) or to a row (1)."""
        told: Any = 0.0
        if condition is not None:
            told = self.condition_projection(condition)
        if labels is not None:
            rows = ops.take(ops.cast(self.label_table, self.compute_dtype), labels, axis=0)
            told = told + ops.reshape(rows, (-1, *(1,) * axes, 2 * self.units))
        return told

    def compute_output_spec(
        self,
        vertical: Tensor,
        horizontal: Tensor,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        shape = (*vertical.shape[:-1], self.units)
        return keras.KerasTensor(shape, self.compute_dtype), keras.KerasTensor(
            shape, self.compute_dtype
        )

    # === One position after the other ===

    def _cache(self, batch: int, columns: int, channels: int) -> Tensor:
        """Inputs of the vertical stack in the rows before the first one."""
        return ops.zeros((batch, self.vertical.rows_cached, columns, channels), self.compute_dtype)

    def _step_weights(self) -> TensorTree:
        return {
            "horizontal": self.horizontal._step_weights(),
            "output_conv": self.output_conv._step_weights(),
        }

    def _start_row(
        self,
        weights: TensorTree,
        cache: Tensor,
        vertical: Tensor | None,
        condition: Tensor | None,
        labels: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Computes the vertical stack of a row.

        Args:
            weights: What `_step_weights` returned.
            cache: Inputs of the vertical stack in the last rows, `(batch, rows, W, channels)`.
            vertical: Those of the row, `(batch, W, channels)`; None for the first layer.
            condition: None, or the row's features, `(batch, W, features)`.
            labels: None, or int32 of shape `(batch,)`.

        Returns:
            A tuple `(vertical, columns, cache)`: the stack's result for the row, what it adds to
            the horizontal stack, and the cache of the next row (of a first layer the same).
        """
        if vertical is not None:
            cache = ops.concatenate([cache, vertical[:, None]], axis=1)
        above = self.vertical._of_rows(cache)[:, 0]  # (B, W, 2 units)
        told = self._told(condition, labels, 1)
        columns = self.to_horizontal(above) + told + weights["horizontal"]["bias"]
        return gate(above + told), columns, cache if vertical is None else cache[:, 1:]

    def _step(
        self,
        weights: TensorTree,
        left: Tensor,
        column: Tensor,
        known: list[Tensor],
        hidden: list[Tensor],
        colour: int,
    ) -> tuple[Tensor, list[Tensor]]:
        """The horizontal stack at a column, for one group of features.

        Args:
            weights: What `_step_weights` returned.
            left: Inputs of the columns before, `(batch, reach * channels)`.
            column: From `_start_row`, this column: `(batch, 2 * units)`.
            known: The column's inputs, for each group so far.
            hidden: Gated features of the groups before.
            colour: Number of the group.

        Returns:
            A tuple `(horizontal, hidden)`, the first `(batch, units / colours)`.
        """
        gates = self.horizontal._step_colour(weights["horizontal"], left, column, known, colour)
        hidden = [*hidden, gate(gates)]
        output_conv = weights["output_conv"]
        outputs = self.output_conv._step_colour(
            output_conv, left[:, :0], output_conv["bias"][None], hidden, colour
        )
        return outputs if self.first else known[-1] + outputs, hidden

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_size": self.kernel_size,
            "first": self.first,
            "colours": self.colours,
            "num_classes": self.num_classes,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class ColourHead(keras.layers.Layer):
    """(ReLU and) masked 1x1 convolutions with ReLU between them, and float32 logits.

    With colours the logits are those of each in turn: `(batch, rows, columns, channels)` to
    `(batch, rows, columns, colours * levels)`.

    Args:
        units: Features of each hidden convolution; a tuple.
        logits: Number of logits of a position.
        colours: As in `MaskedConv2D`.
        activate_inputs: Whether a ReLU comes first.
    """

    def __init__(
        self,
        units: tuple[int, ...],
        logits: int,
        colours: int = 1,
        activate_inputs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(**{f"head_units[{i}]": n for i, n in enumerate(units)})
        self.units = tuple(units)
        self.logits = logits
        self.colours = colours
        self.activate_inputs = activate_inputs

    def build(self, input_shape: Shape) -> None:
        self.convs = []
        for i, filters in enumerate((*self.units, self.logits)):
            conv = MaskedConv2D(
                filters, 1, colours=self.colours, dtype=self.dtype_policy, name=f"conv_{i}"
            )
            conv.build(input_shape)
            self.convs.append(conv)
            input_shape = (*input_shape[:-1], filters)

    def call(self, inputs: Tensor) -> Tensor:
        x = inputs
        for i, conv in enumerate(self.convs):
            x = conv(ops.relu(x) if i or self.activate_inputs else x)
        return ops.cast(x, "float32")

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((*inputs.shape[:-1], self.logits), "float32")

    def _step_weights(self) -> TensorTree:
        return [conv._step_weights() for conv in self.convs]

    def _step(
        self, weights: TensorTree, known: list[list[Tensor]], inputs: Tensor, colour: int
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Logits of one group, `(batch, levels)`, from its inputs `(batch, channels / colours)`.

        Args:
            weights: What `_step_weights` returned.
            known: For each convolution its inputs for the groups before.
            inputs: The group's inputs.
            colour: Number of the group.

        Returns:
            A tuple `(logits, known)`.
        """
        x, seen = inputs, []
        for i, conv in enumerate(self.convs):
            x = ops.relu(x) if i or self.activate_inputs else x
            seen.append([*known[i], x])
            bias = weights[i]["bias"][None]
            x = conv._step_colour(weights[i], x[:, :0], bias, seen[i], colour)
        return ops.cast(x, "float32"), seen

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": list(self.units),
            "logits": self.logits,
            "colours": self.colours,
            "activate_inputs": self.activate_inputs,
        }


def gate(x: Tensor) -> Tensor:
    """The tanh of the first half of the channels times the sigmoid of the second."""
    value, control = ops.split(x, 2, axis=-1)
    return ops.tanh(value) * ops.sigmoid(control)
