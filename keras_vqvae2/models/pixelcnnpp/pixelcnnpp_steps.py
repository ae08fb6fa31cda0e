from typing import Any

from keras import ops

from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Tensor, TensorTree
from keras_vqvae2.models.pixelsnail.causal_block import shift_in

SIZES = 3  # the network sees the image whole, at 1/2 and at 1/4: its levels 0, 1, 2
TURN = 2 ** (SIZES - 1)  # rows and columns after which the kinds of positions repeat


class PixelCNNPlusPlusSteps(Steps):
    """`PixelCNNPlusPlus`, one pixel after the other; a kind for each row and column modulo 4.

    The stream above is computed a row at a time, the other a pixel at a time; of each convolution
    the row before is remembered. Level 1 runs in every second row and column, level 2 in every
    fourth, and what they gave is used until they run again.

    Args:
        model: The `PixelCNNPlusPlus`.
        row_kind: Row modulo 4.
        column_kind: Column modulo 4.

    Reference:
        - Ramachandran et al. 2017, "Fast Generation for Convolutional Autoregressive Models", arXiv
          1704.06001.
    """

    def __init__(self, model: Any, row_kind: int, column_kind: int) -> None:
        self.model = model
        self.layer = model.get_layer
        self.blocks = model.num_blocks
        self.units = model.hidden_units
        self.columns, self.colours = model.image_shape[1:]
        self.row_kind, self.column_kind = row_kind, column_kind
        # The last level that runs in the row, and at the position.
        self.row_level = _last_level(row_kind)
        self.level = min(self.row_level, _last_level(column_kind))

    def _up(self, level):
        return [f"up_{level}_{n}" for n in range(self.blocks)]

    def _down(self, level):
        return [f"down_{level}_{n}" for n in range(self.blocks + (level < SIZES - 1))]

    def _blocks(self):
        """Pairs of level and name of the blocks, without their streams."""
        return [
            (level, name)
            for level in range(SIZES)
            for name in (*self._up(level), *self._down(level))
        ]

    def weights(self) -> TensorTree:
        names = [f"{name}_{s}" for _, name in self._blocks() for s in ("above", "left")]
        for level in range(SIZES - 1):
            names += [f"{k}_{level}_{s}" for k in ("shrink", "grow") for s in ("above", "left")]
        return {name: self.layer(name)._step_weights() for name in ("start", *names, "head")}

    def cache(self, batch: int) -> TensorTree:
        dtype = self.model.compute_dtype

        def rows(levels):
            shape = {level: (batch, self.columns >> level, self.units) for level in levels}
            return {str(level): ops.zeros(size, dtype) for level, size in shape.items()}

        def of_stream(stream):
            blocks = {
                name: self.layer(f"{name}_{stream}")._cache(
                    batch, self.columns >> level, self.units
                )
                for level, name in self._blocks()
            }
            # What the next smaller size is made from, and what the next larger one.
            return {"blocks": blocks, "shrink": rows((0, 1)), "grown": rows((1, 2))}

        return {
            "image": self.layer("start")._cache(batch, self.columns, self.colours),
            "above": of_stream("above"),
            "left": of_stream("left"),
        }

    def start_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        row: Tensor,
        condition: Tensor | None,
        labels: Tensor | None,
    ) -> tuple[TensorTree, TensorTree, TensorTree]:
        before = state["above"]
        now = {kind: dict(before[kind]) for kind in ("blocks", "shrink", "grown")}
        u, start = self.layer("start")._start_row(weights["start"], state["image"], row)
        columns: dict[str, Any] = {"start": start, "blocks": {}, "shrink": {}, "maps": {}}

        def block(name, level, u, auxiliary, told):
            above, left = f"{name}_above", f"{name}_left"
            u, now["blocks"][name] = self.layer(above)._row(
                weights[above], before["blocks"][name], u, auxiliary, labels
            )
            columns["blocks"][name] = self.layer(left)._start_row(
                weights[left], state["left"]["blocks"][name], u if told else None, labels
            )
            return u

        stored = []
        for level in range(self.row_level + 1):
            if level:
                name = f"shrink_{level - 1}_above"
                rows = ops.stack([before["shrink"][str(level - 1)], u], axis=1)
                u = self.layer(name)._of_rows(weights[name], rows)
            stored.append(u)
            for name in self._up(level):
                u = block(name, level, u, None, told=True)
                stored.append(u)
            if level < SIZES - 1:
                now["shrink"][str(level)] = u
            if level < self.row_level:
                name = f"shrink_{level}_left"
                columns["shrink"][str(level)] = self.layer(name)._above(
                    weights[name], state["left"]["shrink"][str(level)]
                )
        for level in range(self.row_level, -1, -1):
            if level == SIZES - 1:
                u = stored.pop()
            else:
                name = f"grow_{level}_above"
                kind = (self.row_kind >> level) & 1
                u = self.layer(name)._of_row(weights[name], now["grown"][str(level + 1)], kind)
            for name in self._down(level):
                u = block(name, level, u, stored.pop(), told=False)
                columns["maps"][name] = u
            if level:
                now["grown"][str(level)] = u
        if self.row_level < SIZES - 1:
            columns["grown"] = state["left"]["grown"][str(self.row_level + 1)]
        batch = u.shape[0]
        zeros = ops.zeros((batch, self.units), u.dtype)
        doubled = ops.zeros((batch, 2 * self.units), u.dtype)
        left = {
            "image": ops.zeros((batch, self.colours + 1), u.dtype),
            "blocks": {name: (doubled, doubled) for _, name in self._blocks()},
            "shrink": {"0": zeros, "1": zeros},
            "grown": {"1": zeros, "2": zeros},
            "now": now,
        }
        return (), columns, left

    def step(
        self,
        weights: TensorTree,
        fixed: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
    ) -> tuple[Tensor, TensorTree, TensorTree]:
        new: dict[str, dict] = {"blocks": {}, "shrink": {}, "grown": {}}
        start = [x[:, self.column_kind] for x in columns["start"]]
        x = self.layer("start")._step(weights["start"], left["image"], start, column)

        def block(name, level, x, auxiliary):
            at = self.column_kind >> level
            own = [part[:, at] for part in columns["blocks"][name]]
            layer = self.layer(f"{name}_left")
            x, new["blocks"][name] = layer._step(
                weights[f"{name}_left"], own, left["blocks"][name], x, auxiliary
            )
            return x

        stored = []
        for level in range(self.level + 1):
            if level:
                name, key = f"shrink_{level - 1}_left", str(level - 1)
                above = columns["shrink"][key][:, self.column_kind >> level]
                x = self.layer(name)._step(weights[name], left["shrink"][key], above, x)
            stored.append(x)
            for name in self._up(level):
                x = block(name, level, x, None)
                stored.append(x)
            if level < SIZES - 1:
                new["shrink"][str(level)] = x
        for level in range(self.level, -1, -1):
            if level == SIZES - 1:
                x = stored.pop()
            else:
                x = self._grow(weights, new, left, columns, level)
            for name in self._down(level):
                above = columns["maps"][name][:, self.column_kind >> level]
                x = block(name, level, x, ops.concatenate([above, stored.pop()], axis=-1))
            if level:
                new["grown"][str(level)] = x
        parameters = self.layer("head")._step(weights["head"], x)
        left = {**left, **{kind: {**left[kind], **part} for kind, part in new.items()}}
        return parameters, left, new

    def _grow(self, weights, new, left, columns, level):
        """The position at a level from that at half the size: of now, or of before."""
        half = level + 1
        if half <= self.level:
            value = new["grown"][str(half)]
        elif half <= self.row_level:
            value = left["grown"][str(half)]
        else:
            value = columns["grown"][:, self.column_kind >> half]
        name = f"grow_{level}_left"
        kinds = (self.row_kind >> level) & 1, (self.column_kind >> level) & 1
        return self.layer(name)._step(weights[name], value, *kinds)

    def remember(
        self,
        weights: TensorTree,
        left: TensorTree,
        column: Tensor,
        columns: TensorTree,
        features: TensorTree,
        codes: Tensor,
    ) -> tuple[TensorTree, TensorTree]:
        return {**left, "image": self.layer("start")._inputs(codes)}, features

    def finish_row(
        self,
        weights: TensorTree,
        state: TensorTree,
        left: TensorTree,
        to_cache: TensorTree,
        row: Tensor,
        codes: Tensor,
    ) -> TensorTree:
        def joined(level, get):
            """A row of a level from what its columns gave, `(B, turns, ...)` for each kind."""
            parts = ops.stack([get(to_cache[k]) for k in range(0, TURN, 2**level)], axis=2)
            return ops.reshape(parts, (parts.shape[0], self.columns >> level, parts.shape[-1]))

        now = {kind: dict(state["left"][kind]) for kind in ("blocks", "shrink", "grown")}
        for level, name in self._blocks():
            if level <= self.row_level:
                now["blocks"][name] = tuple(
                    joined(level, lambda kept, name=name, i=i: kept["blocks"][name][i])
                    for i in range(2)
                )
        for kind in ("shrink", "grown"):
            for key in now[kind]:
                if int(key) <= self.row_level:
                    now[kind][key] = joined(
                        int(key), lambda kept, kind=kind, key=key: kept[kind][key]
                    )
        image = shift_in(state["image"], self.layer("start")._inputs(codes))
        return {"image": image, "above": left["now"], "left": now}


def _last_level(kind):
    """The last level that runs in a row (column) of a kind: it is on the grids up to that one."""
    return next(level for level in range(SIZES - 1, -1, -1) if kind % 2**level == 0)
