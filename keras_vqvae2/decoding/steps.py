from typing import Protocol

from keras_vqvae2.hints import Tensor, TensorTree


class Steps(Protocol):
    """A network cut into steps, one position after the other in raster order: for `RowDecoder`.

    Row by row, and in a row column by column, it is asked for

    ```
    fixed, columns, left = start_row(weights, state, row, condition, labels)
    for each column:
        logits, left, features = step(weights, fixed, left, column, columns[:, column])
        codes = those that are given, or drawn from the logits
        left, to_cache[:, column] = remember(weights, left, column, columns[:, column], features,
                                             codes)
    state = finish_row(weights, state, left, to_cache, row, codes of the row)
    ```

    so that the logits are those of a full pass over the finished map. Trees are tensors in dicts,
    lists and tuples, as a network likes; what a loop carries (`state`, `left`) keeps its shapes and
    dtypes. All methods but `cache` are traced into programs that see weights and variables as
    arguments. Where positions are of several kinds (`RowDecoder`), `columns[:, column]` is that of
    all columns of a turn, `(batch, a turn's, ...)`, and `finish_row` receives a tuple with the
    `to_cache` of each kind, `(batch, turns, ...)`. Layers say what they add in methods of the same
    names, with an underscore.
    """

    def weights(self) -> TensorTree:
        """All that a step multiplies by and that is better computed once than at each position.

        Weights that are used as they are need not be in it: steps may call layers.
        """
        ...

    def cache(self, batch: int) -> TensorTree:
        """The state before the first row; the leading axis of each tensor is the batch."""
        ...

    def start_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        row: Tensor,
        condition: Tensor | None,
        labels: Tensor | None,
    ) -> tuple[TensorTree, TensorTree, TensorTree]:
        """Computes for a whole row what does not depend on its codes.

        Args:
            weights: What `weights` returned.
            state: What `cache` returned, or `finish_row` of the row before.
            row: int32 of shape `()`.
            condition: None, or the row's features, shape `(batch, columns, units)`.
            labels: None, or int32 of shape `(batch,)`.

        Returns:
            A tuple `(fixed, columns, left)`: what stays through the row; what each column adds,
            shapes `(batch, columns, ...)`; and the state before the first column.
        """
        ...

    def step(
        self,
        weights: TensorTree,
        fixed: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
    ) -> tuple[Tensor, TensorTree, TensorTree]:
        """Logits of a column, before its code is known.

        Args:
            weights: What `weights` returned.
            fixed: From `start_row`.
            left: From `start_row`, or `remember` of the column before.
            column: int32 of shape `()`.
            columns: Of what `start_row` returned, this column: shapes `(batch, ...)`.

        Returns:
            A tuple `(logits, left, features)`: float32 of shape `(batch, num_embeddings)`, and
            what `remember` takes.
        """
        ...

    def remember(
        self,
        weights: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
        features: TensorTree,
        codes: Tensor,
    ) -> tuple[TensorTree, TensorTree]:
        """Lets the columns that follow see a column's code.

        Args:
            weights: What `weights` returned.
            left: From `step`.
            column: int32 of shape `()`.
            columns: As in `step`.
            features: From `step`.
            codes: int32 of shape `(batch,)`; -1 where none could be drawn.

        Returns:
            A tuple `(left, to_cache)`: the state before the next column, and what `finish_row`
            takes of this one, shapes `(batch, ...)`.
        """
        ...

    def finish_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        left: TensorTree,
        to_cache: TensorTree,
        row: Tensor,
        codes: Tensor,
    ) -> TensorTree:
        """The state after a row.

        Args:
            weights: What `weights` returned.
            state: The state before the row.
            left: From `remember` of the last column.
            to_cache: What `remember` returned for each column, shapes `(batch, columns, ...)`.
            row: int32 of shape `()`.
            codes: int32 of shape `(batch, columns)`.

        Returns:
            The state, as `cache` returns it.
        """
        ...
