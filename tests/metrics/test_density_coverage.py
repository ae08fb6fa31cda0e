import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vqvae2.metrics import DensityCoverage, density_coverage


def brute_force(features, reference, nearest_k):
    def distances(x, y):
        return np.square(x[:, None].astype("float64") - y[None]).sum(axis=-1)

    radii = np.sort(distances(reference, reference), axis=1)[:, nearest_k, None]
    inside = distances(reference, features) < radii
    return {
        "density": inside.sum(axis=0).mean() / nearest_k,
        "coverage": inside.any(axis=1).mean(),
    }


def test_equals_the_golden_file(golden):
    content = golden("metrics")
    measured = density_coverage(content["fake_features"], content["real_features"], nearest_k=3)
    assert measured["density"] == pytest.approx(content["density_k3"][0], rel=1e-9)
    assert measured["coverage"] == pytest.approx(content["coverage_k3"][0], rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 20),
    nearest_k=st.integers(1, 5),
    shift=st.floats(0.0, 2.0),
)
def test_equals_brute_force(seed, width, nearest_k, shift):
    rng = np.random.default_rng(seed)
    reference, features = rng.normal(size=(60, width)), rng.normal(size=(50, width)) + shift
    expected = brute_force(features, reference, nearest_k)
    assert density_coverage(features, reference, nearest_k) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), nearest_k=st.integers(1, 4), levels=st.sampled_from([2, 4]))
def test_copies_and_ties_equal_brute_force(seed, nearest_k, levels):
    rng = np.random.default_rng(seed)
    reference = rng.integers(levels, size=(rng.integers(6, 40), 3)).astype("float32")
    features = rng.normal(size=(30, 3)).astype("float32")
    features[:20] = reference[rng.integers(len(reference), size=20)]
    expected = brute_force(features, reference, nearest_k)
    assert density_coverage(features, reference, nearest_k) == pytest.approx(expected, rel=1e-12)


def test_identical_sets_constant_sets_and_sets_apart(rng):
    x = rng.normal(size=(40, 8)).astype("float32")
    # In each ball lie its centre and all neighbours but the one on its surface.
    assert density_coverage(x, x) == {"density": 1.0, "coverage": 1.0}
    assert density_coverage(x + 1000.0, x) == {"density": 0.0, "coverage": 0.0}
    # Balls of radius 0 hold nothing, not even their centre.
    assert density_coverage(np.ones((9, 4)), np.ones((6, 4))) == {"density": 0.0, "coverage": 0.0}


def test_one_image_again_and_again_is_dense_and_covers_little(rng):
    x = rng.normal(size=(200, 2)).astype("float32")
    centre = x[np.argmin(np.square(x).sum(axis=1))]
    measured = density_coverage(np.repeat(centre[None], 7, axis=0), x)
    assert measured == density_coverage(centre[None], x)  # more than one are not needed
    assert measured["density"] >= 1.0 and measured["coverage"] < 0.1


def test_streaming_equals_all_at_once_and_two_replicas_one(rng):
    x, y = rng.normal(size=(50, 6)).astype("float32"), rng.normal(size=(40, 6)).astype("float32")
    expected = density_coverage(x, y, nearest_k=2)
    first, second, total = (DensityCoverage(y, nearest_k=2) for _ in range(3))
    for i, batch in enumerate(np.split(x, [1, 8, 30])):
        (first, second)[i % 2].update_state(batch)
    total.merge_state([first, second])  # the reference, given to each, is not counted again
    assert total.result() == expected
    total.reset_state()
    with pytest.raises(ValueError, match="generated features before result"):
        total.result()


def test_errors(rng):
    x = rng.normal(size=(10, 3))
    with pytest.raises(ValueError, match="positive integer. Received: nearest_k=-1"):
        density_coverage(x, x, nearest_k=-1)
    with pytest.raises(ValueError, match="nearest_k=0"):
        DensityCoverage(nearest_k=0)
    with pytest.raises(ValueError, match="more than 5 samples.*Received: 5"):
        density_coverage(x, x[:5])
    with pytest.raises(ValueError, match="at least one sample"):
        density_coverage(x[:0], x)
    with pytest.raises(ValueError, match="as wide as the reference's, 3. Received: 2"):
        density_coverage(x[:, :2], x)
    with pytest.raises(ValueError, match="Received: NaN or infinity in 10 of 10"):
        density_coverage(x * np.nan, x)


def test_config():
    metric = DensityCoverage.from_config(DensityCoverage(nearest_k=3, name="dc").get_config())
    assert metric.nearest_k == 3 and metric.name == "dc"
