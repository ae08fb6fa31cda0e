import keras
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vqvae2.metrics import FeatureStatistics, FrechetDistance, frechet_distance


def by_scipy(features, reference):
    """The textbook's formula."""
    (mean, covariance), (reference_mean, reference_covariance) = (
        (x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False)))
        for x in (np.asarray(features, "float64"), np.asarray(reference, "float64"))
    )
    root = scipy.linalg.sqrtm(covariance @ reference_covariance)
    trace = np.trace(covariance + reference_covariance - 2.0 * root.real)
    return ((mean - reference_mean) ** 2).sum() + trace


def features(rng, count, width, shift=0.0):
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + shift


def test_equals_the_golden_file(golden):
    content = golden("metrics")
    distance = frechet_distance(content["fake_features"], content["real_features"])
    assert distance == pytest.approx(content["frechet_distance"][0], rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 12),
    extra=st.integers(1, 30),
    shift=st.sampled_from([0.0, 1.0, 1000.0]),
)
def test_equals_scipy(seed, width, extra, shift):
    rng = np.random.default_rng(seed)
    x = features(rng, width + extra, width, shift)
    y = features(rng, width + 2 * extra, width)
    assert frechet_distance(x, y) == pytest.approx(by_scipy(x, y), rel=1e-6)


@pytest.mark.filterwarnings("ignore:The Fréchet distance")
@pytest.mark.parametrize("count, width", [(200, 16), (10, 64), (2, 5), (2, 1)])
def test_identical_sets_are_at_zero(count, width, rng):
    x = 1000.0 * features(rng, count, width)
    spread = np.trace(np.atleast_2d(np.cov(x, rowvar=False)))
    assert 0.0 <= frechet_distance(x, x) < 1e-12 * spread


@pytest.mark.filterwarnings("ignore:The Fréchet distance")
def test_singular_covariances_are_as_exact_as_others(rng):
    # Samples that span a line each: with directions u, v and variances a, b it is known.
    u, v = np.linalg.qr(rng.normal(size=(50, 2)))[0].T
    v = 0.6 * u + 0.8 * v
    along, other = rng.normal(size=(2, 20, 1))
    a, b = along.var(ddof=1), other.var(ddof=1)
    x, y = along * u, np.repeat(other * v, 3, axis=0)  # duplicates too
    b *= (20 - 1) * 3 / (60 - 1)
    means = along.mean() * u - other.mean() * v
    expected = means @ means + a + b - 2.0 * 0.6 * np.sqrt(a * b)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_constant_features(rng):
    x, y = features(rng, 100, 6), features(rng, 100, 6)
    padded = [np.concatenate([z, np.full((100, 3), 7.0)], axis=1) for z in (x, y)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(x, y), rel=1e-10)
    flat = np.full((100, 6), 2.0)
    expected = ((y.mean(axis=0) - 2.0) ** 2).sum() + np.trace(np.cov(y, rowvar=False))
    assert frechet_distance(flat, y) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(flat, flat + 1.0) == pytest.approx(6.0)


def test_takes_moments_and_statistics(rng):
    x, y = features(rng, 50, 4), features(rng, 60, 4, 1.0)
    expected = frechet_distance(x, y)
    moments = [(z.mean(axis=0), np.cov(z, rowvar=False)) for z in (x, y)]
    assert frechet_distance(*moments) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(FeatureStatistics(x), moments[1]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.filterwarnings("ignore:The Fréchet distance")
def test_few_samples_equal_their_covariance(rng):
    few, many = features(rng, 20, 32, 100.0), features(rng, 50, 32)
    for x, y in [(few, many), (many, few), (few, 2.0 * few)]:
        statistics = FeatureStatistics(x), FeatureStatistics(y)
        assert frechet_distance(x, y) == pytest.approx(frechet_distance(*statistics), rel=1e-12)


def test_streaming_equals_all_at_once_and_two_replicas_one(rng):
    x, y = features(rng, 100, 5, 1000.0), features(rng, 90, 5, 1001.0)
    expected = frechet_distance(x, y)
    first, second, total = (FrechetDistance() for _ in range(3))
    for i, batch in enumerate(np.split(x, [1, 8, 50])):
        (first, second)[i % 2].update_state(batch)
    first.update_reference(y[:20])
    second.update_reference(y[20:])
    total.merge_state([first, second])
    assert total.result() == pytest.approx(expected, rel=1e-9)
    given = FrechetDistance(FeatureStatistics(y))
    given.update_state(keras.ops.convert_to_tensor(x.astype("float32")))
    assert given.result() == pytest.approx(expected, rel=1e-4)
    given.reset_state()
    given.update_state(x[:50])
    given.merge_state([FrechetDistance(y), first.__class__(y)])
    given.update_state(x[50:])
    assert given.result() == pytest.approx(expected, rel=1e-9)


def test_statistics_survive_a_file_and_go_on(rng, tmp_path):
    x = features(rng, 100, 5)
    path = tmp_path / "cache" / "reference.npz"
    FeatureStatistics(x[:60]).save(path)
    statistics = FeatureStatistics.load(path)
    statistics.update(x[60:])
    assert statistics.count == 100 and statistics.width == 5
    np.testing.assert_allclose(statistics.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(x, rowvar=False), rtol=1e-12)
    assert [file.name for file in path.parent.iterdir()] == ["reference.npz"]
    statistics.merge(statistics)
    twice = np.concatenate([x, x])
    np.testing.assert_allclose(statistics.covariance, np.cov(twice, rowvar=False), rtol=1e-12)


def test_statistics_of_two_networks_do_not_mix(rng, tmp_path):
    x = features(rng, 50, 4)
    statistics, other = (FeatureStatistics(x, extractor=name) for name in ("First", "Second"))
    statistics.save(tmp_path / "first.npz")
    loaded = FeatureStatistics.load(tmp_path / "first.npz")
    assert loaded.extractor == "First"
    message = "statistics of one network's features. Received: .* and .*"
    for call in (
        lambda: frechet_distance(loaded, other),
        lambda: loaded.merge(other),
        lambda: FrechetDistance(loaded, extractor="Second"),
        lambda: FrechetDistance(extractor="Second").merge_state([FrechetDistance(loaded, "First")]),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert loaded.count == 50  # an error changes nothing
    unknown = FeatureStatistics(x)
    assert frechet_distance(loaded, unknown) == pytest.approx(0.0, abs=1e-9)
    unknown.merge(loaded)
    assert unknown.extractor == "First" and unknown.count == 100
    with pytest.raises(ValueError, match="name or None. Received: extractor=7"):
        FeatureStatistics(extractor=7)


def test_a_mean_far_from_zero_costs_no_digits(rng):
    x = rng.normal(size=(5000, 2)) + 1e6
    statistics = FeatureStatistics()
    for batch in np.split(x, 50):
        statistics.update(batch)
    np.testing.assert_allclose(statistics.covariance, np.cov(x, rowvar=False), atol=1e-9)


def test_too_few_samples_warn_with_the_number_needed(rng):
    x = rng.normal(size=(6, 6))
    with pytest.warns(UserWarning, match="at least 7 samples, and 10,000.*features of 6 samples"):
        frechet_distance(x, rng.normal(size=(7, 6)))
    with pytest.warns(UserWarning, match="Received: reference of 5 samples"):
        frechet_distance(rng.normal(size=(7, 6)), x[:5])


def test_errors(rng, tmp_path):
    x = rng.normal(size=(10, 3))
    nan = np.where(np.arange(10)[:, None] < 2, np.nan, x)
    with pytest.raises(ValueError, match="finite features. Received: NaN .* in 2 of 10 samples"):
        frechet_distance(nan, x)
    with pytest.raises(ValueError, match="as wide as the reference's, 3. Received: 2"):
        frechet_distance(x[:, :2], x)
    with pytest.raises(ValueError, match="at least 2 samples. Received: 1"):
        frechet_distance(x[:1], x)
    with pytest.raises(ValueError, match=r"\(samples, width\). Received: shape \(3,\)"):
        frechet_distance(x[0], x)
    with pytest.raises(ValueError, match=r"Received: \(3,\) and \(2, 2\)"):
        frechet_distance((np.zeros(3), np.eye(2)), x)
    with pytest.raises(ValueError, match="Received: 3 arrays"):
        frechet_distance((np.zeros(3), np.eye(3), 10), x)
    with pytest.raises(ValueError, match="symmetric covariance"):
        frechet_distance((np.zeros(3), np.triu(np.ones((3, 3)))), x)
    with pytest.raises(ValueError, match="finite mean and covariance"):
        frechet_distance((np.full(3, np.inf), np.eye(3)), x)
    metric = FrechetDistance(x)
    with pytest.raises(ValueError, match="generated features before result"):
        metric.result()
    with pytest.raises(ValueError, match="either in the constructor or by update_reference"):
        metric.update_reference(x)
    with pytest.raises(ValueError, match="Expected metrics of FrechetDistance"):
        metric.merge_state([keras.metrics.Mean()])
    with pytest.raises(ValueError, match="ends in .npz. Received: statistics"):
        FeatureStatistics(x).save("statistics")
    metric.update_state(x)
    with pytest.raises(ValueError, match="as wide as the reference's, 3. Received: 2"):
        metric.update_state(x[:, :2])
    for name, content in (("array.npz", None), ("other.npz", {"mu": x}), ("text.npz", b"no zip")):
        if content is None:
            with open(tmp_path / name, "wb") as file:
                np.save(file, x)
        elif isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            np.savez(tmp_path / name, **content)
        with pytest.raises(ValueError, match=f"Expected .*{name} to hold mu, sigma and count"):
            FeatureStatistics.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        FeatureStatistics.load(tmp_path / "missing.npz")


def test_config():
    config = FrechetDistance(np.zeros((3, 2)), extractor="Network", name="fd").get_config()
    metric = FrechetDistance.from_config(config)
    assert metric.name == "fd" and metric.extractor == "Network"
