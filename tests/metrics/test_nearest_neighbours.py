import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vqvae2.metrics import nearest_neighbours
from keras_vqvae2.metrics.nearest_neighbours import Distances, PointSet


def squared_distances(x, y):
    return np.square(x[:, None].astype("float64") - y[None]).sum(axis=-1)


def make_sets(seed, kind, dtype):
    """Two sets, of a kind that asks for more than float32 products can tell."""
    rng = np.random.default_rng(seed)
    width = rng.choice([1, 2, 5, 40])
    size = 10.0 ** rng.integers(-15, 15)
    x, y = (
        size * (rng.normal(size=(count, width)) + rng.choice([0.0, 1.0, 1000.0]))
        for count in rng.integers(6, 40, size=2)
    )
    if kind == "copies":  # each of them lies on some ball's surface
        y = x[rng.integers(len(x), size=len(y))]
        x = np.concatenate([x, x[:3], y[:4]])
    elif kind == "lattice":
        x, y = rng.integers(3, size=x.shape), rng.integers(3, size=y.shape)
    elif kind == "two constants":
        x, y = np.full(x.shape, size), np.zeros(y.shape)
    elif kind == "clusters":  # so tight that, beside their distance, they vanish in float32
        x, y = (1e-4 * z + 1e3 * size * rng.integers(2, size=(len(z), 1)) for z in (x, y))
    elif kind == "outliers":
        x[0] *= 1e6
        y[:3] = x[:3]
    x, y = x.astype(dtype), y.astype(dtype)
    if kind == "neighbouring numbers":
        y[:4] = np.nextafter(x[:4], np.inf, dtype=dtype)
    return x, y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "kind",
    [
        "normal",
        "copies",
        "lattice",
        "two constants",
        "clusters",
        "outliers",
        "neighbouring numbers",
    ],
)
def test_equals_brute_force(kind, dtype, monkeypatch):
    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        nearest_k=st.integers(1, 5),
        tile=st.sampled_from([3, 16, 2**12]),
        few=st.sampled_from([1, 7, 2**12]),
    )
    def check(seed, nearest_k, tile, few):
        monkeypatch.setattr(nearest_neighbours, "_TILE", tile)
        monkeypatch.setattr(nearest_neighbours, "_PAIR_ENTRIES", few)
        x, y = make_sets(seed, kind, dtype)
        rows, columns = PointSet(x), PointSet(y)
        radii = rows.radii(nearest_k)
        own = np.sort(squared_distances(rows.points, x), axis=1)[:, nearest_k]
        np.testing.assert_allclose(radii, own, rtol=1e-12)
        closed, opened, transposed = (
            np.zeros((len(rows.points), len(columns.points)), "bool") for _ in range(3)
        )
        column_radii = columns.radii(nearest_k)
        for tile in Distances(rows, columns).tiles():
            part = tile.rows, tile.columns
            closed[part] = tile.within(radii[tile.rows, None])
            opened[part] = tile.within(radii[tile.rows, None], strict=True)
            transposed[part] = tile.within(column_radii[None, tile.columns])
        expected = squared_distances(rows.points, columns.points)
        np.testing.assert_array_equal(closed, expected <= own[:, None])
        np.testing.assert_array_equal(opened, expected < own[:, None])
        column_own = np.sort(squared_distances(columns.points, y), axis=1)[:, nearest_k]
        np.testing.assert_array_equal(transposed, expected <= column_own)

    check()


@pytest.mark.parametrize("width", [1, 7, 129, 2048, 9001])
def test_a_pair_has_one_distance_whatever_is_computed_with_it(width, rng, monkeypatch):
    x, y = rng.normal(size=(2, 30, width)).astype("float32")
    i, j = rng.integers(30, size=(2, 64))
    there = Distances(PointSet(x), PointSet(y)).of_pairs(i, j)
    monkeypatch.setattr(nearest_neighbours, "_PAIR_ENTRIES", 3 * width)
    back = Distances(PointSet(y), PointSet(x)).of_pairs(j[::-1], i[::-1])
    np.testing.assert_array_equal(there, back[::-1])


def test_most_is_decided_by_float32_products(rng, monkeypatch):
    pairs, of_pairs = [], Distances.of_pairs

    def counting(self, i, j):
        pairs.append(len(i))
        return of_pairs(self, i, j)

    monkeypatch.setattr(Distances, "of_pairs", counting)
    x, y = (PointSet(z) for z in (rng.normal(size=(2, 1000, 64)) + 3.0).astype("float32"))
    radii = x.radii(3)
    (tile,) = Distances(x, y).tiles()
    assert tile.within(radii[:, None]).any()
    assert tile._squared.dtype == "float32"
    neighbours, doubtful = pairs
    assert neighbours < 1.1 * 4 * 1000 and doubtful < 100


def test_each_pair_of_a_set_is_in_one_tile(rng, monkeypatch):
    monkeypatch.setattr(nearest_neighbours, "_TILE", 4)
    x, y = (PointSet(rng.normal(size=(n, 3))) for n in (10, 9))
    for columns, expected in ((x, np.triu(np.ones((10, 10)))), (y, np.ones((10, 9)))):
        seen = np.zeros(expected.shape)
        for tile in Distances(x, columns).tiles():
            assert tile._squared.shape <= (4, 4)
            seen[tile.rows, tile.columns] += 1
        blocks = np.maximum(seen, seen.T) if columns is x else seen
        np.testing.assert_array_equal(blocks, 1)
        assert seen.sum() < 1.5 * expected.sum()


def test_copies_are_kept_once(rng):
    x = rng.normal(size=(5, 3))
    points = PointSet(x[[0, 1, 0, 2, 0]])
    np.testing.assert_array_equal(points.points, x[:3])
    assert points.counts.tolist() == [3, 1, 1]
    assert points.radii(2)[0] == 0.0
    everything = PointSet(x)
    assert everything.points is x


def test_errors(rng):
    with pytest.raises(ValueError, match="at least one sample. Received: none"):
        PointSet(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="more than 3 samples.*Received: 3"):
        PointSet(rng.normal(size=(3, 2))).radii(3)
