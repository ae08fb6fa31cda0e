"""Which points lie in which balls, decided exactly, at the speed of float32 matrix products.

Squared distances `|x|^2 + |y|^2 - 2 x.y` come from float32 matrix products, a tile of some rows and
columns at a time, with a bound on their error. What the bound leaves open is computed again: the
tile in float64 where much is open, and then pair by pair from the differences. These depend on
nothing but the pair: equal points have distance 0, and a copy of a point's neighbour is exactly as
far from it. Within one set a tile serves its rows and its columns, so half of the tiles do.
"""

import hashlib

import numpy as np

from keras_vqvae2.metrics.feature_sets import as_features, check_widths

_TILE = 1024  # rows and columns of a tile: 4 MiB in float32, near the caches' size
_PAIR_ENTRIES = 2**16  # numbers of the differences in memory at a time: 512 KiB, within a cache
_OPEN_SHARE = 1 / 256  # of a tile in float32; more, and float64 is faster than pair by pair


def point_sets(features, reference):
    """The two sets of features as `PointSet`s, checked."""
    features, reference = as_features(features), as_features(reference)
    check_widths(features.shape[1], reference.shape[1])
    return PointSet(features), PointSet(reference)


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
        nearest = _Nearest(self.counts, nearest_k + 1)
        for tile in Distances(self, self).tiles():
            nearest.update(tile)
        return nearest.radii()


class _Nearest:
    """The nearest neighbours, among those seen so far, of each point of a set.

    Args:
        counts: How often each point occurs, shape `(P,)`.
        weight: Positive integer: how many neighbours are looked for, copies included.
    """

    def __init__(self, counts, weight):
        self.counts, self.weight = counts, weight
        shape = len(counts), min(weight, len(counts))  # each point counts at least once
        self.squared = np.full(shape, np.inf)  # ascending in each row
        self.weights = np.zeros(shape, counts.dtype)

    def update(self, tile):
        """Looks for neighbours of a tile's rows among its columns, and the other way round."""
        number = self.squared.shape[1]
        i, j, squared = tile.nearest(self.squared[tile.rows, -1], number, axis=1)
        self._add(i, j, squared)
        if tile.rows != tile.columns:
            i, j, squared = tile.nearest(self.squared[tile.columns, -1], number, axis=0)
            self._add(j, i, squared)

    def _add(self, i, j, squared):
        """Adds points `j` at these squared distances from the points `i`."""
        number = self.squared.shape[1]
        order = np.lexsort((squared, i))  # by point, then by distance
        i, j, squared = i[order], j[order], squared[order]
        points, first, lengths = np.unique(i, return_index=True, return_counts=True)
        row = np.repeat(np.arange(len(points)), lengths)
        rank = np.arange(len(i)) - first[row]
        near = rank < number
        place = row[near], number + rank[near]
        table = np.full((len(points), 2 * number), np.inf)
        table[:, :number], table[place] = self.squared[points], squared[near]
        weights = np.zeros(table.shape, self.counts.dtype)
        weights[:, :number], weights[place] = self.weights[points], self.counts[j[near]]
        nearest = np.argsort(table, axis=1, kind="stable")[:, :number]
        self.squared[points] = np.take_along_axis(table, nearest, axis=1)
        self.weights[points] = np.take_along_axis(weights, nearest, axis=1)

    def radii(self):
        """The squared distance within which the neighbours' counts reach `weight`."""
        reached = np.cumsum(self.weights, axis=1) >= self.weight
        return self.squared[np.arange(len(reached)), reached.argmax(axis=1)]


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

    def _largest(self, points):
        # Without a copy of all points in float64.
        extremes = points.max(axis=0) - self.centre, points.min(axis=0) - self.centre
        return np.abs(extremes).max()

    def centred(self, points, dtype):
        """The points, centred and scaled, and the squares of their norms."""
        points = ((points - self.centre) * self.scale).astype(dtype)
        return points, np.square(points, dtype="float64").sum(axis=1)

    def of_pairs(self, i, j):
        """Squared distances of rows `i` to columns `j`, pair by pair, in float64."""
        squared = np.empty(len(i))
        size = max(1, _PAIR_ENTRIES // self.rows.shape[1])
        for start in range(0, len(i), size):
            part = slice(start, start + size)
            differences = np.subtract(self.rows[i[part]], self.columns[j[part]], dtype="float64")
            np.square(differences, out=differences)  # (pairs, D)
            squared[part] = differences.sum(axis=1)
        return squared

    def tiles(self):
        """Yields each `DistanceTile`; within one set those on the diagonal and then those above."""
        rows, columns = _slices(len(self.rows)), _slices(len(self.columns))
        right = [(part, *self.centred(self.columns[part], "float32")) for part in columns]
        if self.rows is self.columns:
            for part in right:
                yield DistanceTile(self, part, part)
        for number, part in enumerate(rows):
            left = (part, *self.centred(self.rows[part], "float32"))
            for other in right[number + 1 :] if self.rows is self.columns else right:
                yield DistanceTile(self, left, other)


class DistanceTile:
    """The scaled squared distances of some rows to some columns, and a bound on their error.

    Args:
        distances: `Distances`.
        rows: Slice of the rows, those points as `Distances.centred` makes them in float32, and the
            squares of their norms.
        columns: Likewise.
    """

    def __init__(self, distances, rows, columns):
        self._distances = distances
        self.rows, self.columns = rows[0], columns[0]
        self._compute(*rows[1:], *columns[1:])

    def _compute(self, points, norms, columns, column_norms):
        dtype = points.dtype
        self._squared = (-2 * points) @ columns.T  # (rows, D) @ (D, columns)
        self._squared += column_norms.astype(dtype)
        self._squared += norms.astype(dtype)[:, None]
        # A sum of D products is off by D / 2 eps of |x| |y| at most, whatever its order. So are
        # the norms and the distances of pairs in float64; roundings of the points are the 8.
        limits, width = np.finfo(dtype), points.shape[1]
        self._error = 2.0 * (width + 8) * limits.eps * (norms.max() + column_norms.max())
        self._error += width * limits.tiny  # products too small for the format

    def _refined(self, num_open):
        """Computes the tile in float64 if much is open in float32; returns whether it did."""
        worthwhile = num_open > _OPEN_SHARE * self._squared.size
        if self._squared.dtype == "float64" or not worthwhile:
            return False
        rows, columns = self._distances.rows[self.rows], self._distances.columns[self.columns]
        centred = self._distances.centred
        self._compute(*centred(rows, "float64"), *centred(columns, "float64"))
        return True

    def nearest(self, limits, number, axis):
        """All pairs that can be of each point and one of its nearest on the other side, and some.

        Args:
            limits: Squared distances above which none is looked for, shape `(rows,)` or
                `(columns,)`; infinite where nothing is known.
            number: How many of each point's nearest must be among the pairs.
            axis: 1 for the nearest columns of each row, 0 for the nearest rows of each column.

        Returns:
            Rows, columns and their squared distances, arrays of the same length.
        """
        dtype, scaled = self._squared.dtype, limits * self._distances.scale**2
        if np.isinf(limits).any():
            last = min(number, self._squared.shape[axis]) - 1
            bound = np.partition(self._squared, last, axis=axis).take(last, axis=axis)
            scaled = np.minimum(scaled, bound + self._error)
        mask = self._squared <= np.expand_dims((scaled + self._error).astype(dtype), axis)
        if self._refined(np.count_nonzero(mask) - number * len(limits)):
            return self.nearest(limits, number, axis)
        i, j = positions(mask)
        i, j = i + self.rows.start, j + self.columns.start
        return i, j, self._distances.of_pairs(i, j)

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
        i, j = positions(still_open)
        squared = self._distances.of_pairs(i + self.rows.start, j + self.columns.start)
        radii = np.broadcast_to(radii, inside.shape)[i, j]
        inside[i, j] = squared < radii if strict else squared <= radii
        return inside


def positions(mask):
    """Where a matrix of bool holds: `np.nonzero`, many times as fast where it seldom does."""
    return np.divmod(np.flatnonzero(mask), mask.shape[1])


def _slices(length):
    """Slices of nearly equal lengths, `_TILE` at most, that cover the length."""
    starts = np.linspace(0, length, -(-length // _TILE) + 1).astype("int64").tolist()
    return [slice(start, stop) for start, stop in zip(starts, starts[1:])]
