"""Which points lie in which balls, decided exactly, at the speed of float32 matrix products.

Squared distances `|x|^2 + |y|^2 - 2 x.y` come from a float32 matrix product, a block of rows at a
time, with a bound on their error. What the bound leaves open is computed again: the block in
float64 where much is open, and then pair by pair from the differences. These depend on nothing but
the pair: equal points have distance 0, and a copy of a point's neighbour is exactly as far from it.
"""

import hashlib

import numpy as np

_BLOCK_ENTRIES = 2**24  # distances in memory at a time: 64 MiB in float32
_PAIR_ENTRIES = 2**20  # numbers of the differences in memory at a time: 8 MiB
_COLUMNS = 4096  # points centred in float64 at a time
_OPEN_SHARE = 1 / 256  # of a block in float32; more, and float64 is faster than pair by pair


class PointSet:
    """A set's different points, and how often each occurs.

    Were copies kept, all their zero distances would have to be computed pair by pair.

    Args:
        points: float32 or float64, shape `(N, D)`.

    Attributes:
        points: Shape `(P, D)`, in the order of their first occurrence.
        counts: Integers of sum `N`, shape `(P,)`.
    """

    def __init__(self, points):
        if not len(points):
            raise ValueError("Expected at least one sample. Received: none")
        numbers = {}
        digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in points)
        inverse = [numbers.setdefault(digest, len(numbers)) for digest in digests]
        self.counts = np.bincount(inverse)
        copies = len(numbers) < len(points)
        self.points = points[np.unique(inverse, return_index=True)[1]] if copies else points

    def radii(self, nearest_k):
        """Squared distance of each point to its `nearest_k`-th nearest neighbour in the set.

        Copies of a point are neighbours of it.

        Args:
            nearest_k: Positive integer below the set's size.

        Returns:
            float64, shape `(P,)`.

        Raises:
            ValueError: If the set is not larger than `nearest_k`.
        """
        if self.counts.sum() <= nearest_k:
            raise ValueError(
                f"Expected more than {nearest_k} samples, so that each has as many neighbours. "
                f"Received: {self.counts.sum()}"
            )
        # The point itself comes first, so one more is looked for.
        return np.concatenate(
            [block.smallest(nearest_k + 1, self.counts) for block in Distances(self, self).blocks()]
        )


class Distances:
    """Squared distances of one set's points (rows) to another's (columns).

    Args:
        rows: `PointSet`.
        columns: `PointSet` of points as wide.
    """

    def __init__(self, rows, columns):
        self.rows, self.columns = rows.points, columns.points
        # Distances about any centre are the same, but the products' errors are smallest about the
        # mean. The scale, a power of two, keeps squares within float32 and rounds nothing.
        self.centre = self.rows.mean(axis=0, dtype="float64")
        self.scale = 1.0
        largest = max(self._largest(self.rows), self._largest(self.columns))
        if largest > 1e-300:
            self.scale = 2.0 ** -np.ceil(np.log2(largest))
        self._columns32 = np.empty(self.columns.shape, "float32"), np.empty(len(self.columns))
        for part in self._column_slices():
            centred = self.centred(self.columns[part], "float32")
            self._columns32[0][part], self._columns32[1][part] = centred

    def _largest(self, points):
        # Without a copy of all points in float64.
        extremes = points.max(axis=0) - self.centre, points.min(axis=0) - self.centre
        return np.abs(extremes).max()

    def _column_slices(self):
        return (slice(i, i + _COLUMNS) for i in range(0, len(self.columns), _COLUMNS))

    def centred(self, points, dtype):
        """The points, centred and scaled, and the squares of their norms."""
        points = ((points - self.centre) * self.scale).astype(dtype)
        return points, np.square(points, dtype="float64").sum(axis=1)

    def column_parts(self, dtype):
        """Yields slices of the columns, and what `centred` makes of each."""
        if dtype == "float32":
            yield (slice(None), *self._columns32)
            return
        for part in self._column_slices():
            yield (part, *self.centred(self.columns[part], dtype))

    def of_pairs(self, i, j):
        """Squared distances of rows `i` to columns `j`, pair by pair, in float64."""
        squared = np.empty(len(i))
        size = max(1, _PAIR_ENTRIES // self.rows.shape[1])
        for start in range(0, len(i), size):
            part = slice(start, start + size)
            differences = self.rows[i[part]] - self.columns[j[part]].astype("float64")  # (pairs, D)
            squared[part] = np.square(differences, out=differences).sum(axis=1)
        return squared

    def blocks(self):
        """Yields a `DistanceBlock` for each few rows."""
        size = max(1, _BLOCK_ENTRIES // len(self.columns))
        for start in range(0, len(self.rows), size):
            yield DistanceBlock(self, slice(start, min(start + size, len(self.rows))))


class DistanceBlock:
    """The scaled squared distances of some rows to all columns, and a bound on their error."""

    def __init__(self, distances, rows):
        self.rows = rows
        self._distances = distances
        self._compute("float32")

    def _compute(self, dtype):
        points, norms = self._distances.centred(self._distances.rows[self.rows], dtype)
        points *= -2
        self._squared = np.empty((len(points), len(self._distances.columns)), dtype)
        largest = 0.0
        for part, columns, column_norms in self._distances.column_parts(dtype):
            squared = self._squared[:, part]
            np.matmul(points, columns.T, out=squared)  # (rows, columns)
            squared += column_norms.astype(dtype)
            squared += norms.astype(dtype)[:, None]
            largest = max(largest, column_norms.max())
        # A sum of D products is off by D / 2 eps of |x| |y| at most, whatever its order. So are
        # the norms and the distances of pairs in float64; roundings of the points are the 8.
        limits, width = np.finfo(dtype), points.shape[1]
        self._error = 2.0 * (width + 8) * limits.eps * (norms.max() + largest)
        self._error += width * limits.tiny  # products too small for the format

    def _refined(self, num_open):
        """Computes the block in float64 if much is open in float32; returns whether it did."""
        worthwhile = num_open > _OPEN_SHARE * self._squared.size
        if self._squared.dtype == "float64" or not worthwhile:
            return False
        self._compute("float64")
        return True

    def smallest(self, weight, column_weights):
        """For each row the squared distance within which the columns' weights reach `weight`.

        Args:
            weight: Positive integer.
            column_weights: Positive integers, shape `(columns,)`.

        Returns:
            float64, shape `(rows,)`.
        """
        number = min(weight, self._squared.shape[1]) - 1  # each column weighs at least 1
        bound = np.partition(self._squared, number, axis=1)[:, number]
        candidates = self._squared <= (bound + 2.0 * self._error)[:, None].astype(bound.dtype)
        if self._refined(np.count_nonzero(candidates) - len(bound) * (number + 1)):
            return self.smallest(weight, column_weights)
        i, j = np.nonzero(candidates)
        squared = self._distances.of_pairs(i + self.rows.start, j)
        order = np.lexsort((squared, i))  # by row, then by distance
        weights = column_weights[j[order]]
        reached = np.cumsum(weights)
        first = np.searchsorted(i, np.arange(len(bound)))
        wanted = reached[first] - weights[first] + weight
        return squared[order][np.searchsorted(reached, wanted)]

    def within(self, radii, strict=False):
        """Which distances are at most the radius.

        Args:
            radii: Squared, of `PointSet.radii`: shape `(rows, 1)` or `(1, columns)`.
            strict: Whether a distance must be below the radius.

        Returns:
            bool, shape `(rows, columns)`.
        """
        dtype, scaled = self._squared.dtype, radii * self._distances.scale**2
        inside = self._squared <= (scaled - self._error).astype(dtype)
        still_open = self._squared <= (scaled + self._error).astype(dtype)
        still_open ^= inside
        if self._refined(np.count_nonzero(still_open)):
            return self.within(radii, strict)
        i, j = np.nonzero(still_open)
        squared = self._distances.of_pairs(i + self.rows.start, j)
        radii = np.broadcast_to(radii, inside.shape)[i, j]
        inside[i, j] = squared < radii if strict else squared <= radii
        return inside
