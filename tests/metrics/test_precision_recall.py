import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vqvae2.metrics import PrecisionRecall, precision_recall


def brute_force(features, reference, nearest_k):
    def distances(x, y):
        return np.square(x[:, None].astype("float64") - y[None]).sum(axis=-1)

    def radii(x):
        return np.sort(distances(x, x), axis=1)[:, nearest_k]

    between = distances(reference, features)
    return {
        "precision": (between <= radii(reference)[:, None]).any(axis=0).mean(),
        "recall": (between <= radii(features)).any(axis=1).mean(),
    }


def test_equals_the_golden_file(golden):
    content = golden("metrics")
    measured = precision_recall(content["fake_features"], content["real_features"], nearest_k=3)
    assert measured["precision"] == pytest.approx(content["precision_k3"][0], rel=1e-9)
    assert measured["recall"] == pytest.approx(content["recall_k3"][0], rel=1e-9)


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
    assert precision_recall(features, reference, nearest_k) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), nearest_k=st.integers(1, 4), levels=st.sampled_from([2, 4]))
def test_copies_and_ties_equal_brute_force(seed, nearest_k, levels):
    rng = np.random.default_rng(seed)
    reference = rng.integers(levels, size=(rng.integers(6, 40), 3)).astype("float32")
    features = rng.normal(size=(30, 3)).astype("float32")
    features[:20] = reference[rng.integers(len(reference), size=20)]
    expected = brute_force(features, reference, nearest_k)
    assert precision_recall(features, reference, nearest_k) == pytest.approx(expected, rel=1e-12)


def test_a_hand_case():
    reference = np.array([[0.0], [1.0], [2.0], [4.0]])  # balls 0 +- 1, 1 +- 1, 2 +- 1, 4 +- 2
    features = np.array([[-1.0], [-1.5], [6.0], [6.5]])  # balls of radius 0.5
    measured = precision_recall(features, reference, nearest_k=1)
    assert measured == {"precision": 0.5, "recall": 0.0}


def test_sets_alike_and_sets_apart(rng):
    x = rng.normal(size=(40, 8)).astype("float32")
    assert precision_recall(x, x) == {"precision": 1.0, "recall": 1.0}
    assert precision_recall(x + 1000.0, x) == {"precision": 0.0, "recall": 0.0}
    assert precision_recall(np.ones((9, 4)), np.ones((5, 4))) == {"precision": 1.0, "recall": 1.0}


def test_streaming_equals_all_at_once_and_two_replicas_one(rng):
    x, y = rng.normal(size=(50, 6)).astype("float32"), rng.normal(size=(40, 6)).astype("float32")
    expected = precision_recall(x, y, nearest_k=2)
    assert 0.0 < expected["precision"] < 1.0
    first, second, total = (PrecisionRecall(nearest_k=2) for _ in range(3))
    for i, batch in enumerate(np.split(x, [1, 8, 30])):
        written = batch.copy()
        (first, second)[i % 2].update_state(written)
        written[:] = 0.0  # a loader may use its memory again
    first.update_reference(keras.ops.convert_to_tensor(y[:10]))
    second.update_reference(y[10:])
    total.merge_state([first, second])
    assert total.result() == expected
    given_reference = PrecisionRecall(y, nearest_k=2)
    given_reference.update_state(y)
    given_reference.reset_state()
    given_reference.update_state(x)
    assert given_reference.result() == expected


def test_errors(rng):
    x = rng.normal(size=(10, 3))
    with pytest.raises(ValueError, match="positive integer. Received: nearest_k=0"):
        precision_recall(x, x, nearest_k=0)
    with pytest.raises(ValueError, match="nearest_k=1.5"):
        PrecisionRecall(nearest_k=1.5)
    with pytest.raises(ValueError, match="more than 3 samples.*Received: 3"):
        precision_recall(x[:3], x)
    with pytest.raises(ValueError, match="as wide as the reference's, 3. Received: 2"):
        precision_recall(x[:, :2], x)
    with pytest.raises(ValueError, match="in 1 of 10 samples"):
        precision_recall(x, np.where(np.arange(10)[:, None] == 4, np.inf, x))
    with pytest.raises(ValueError, match=r"Received: shape \(10, 3, 1\)"):
        precision_recall(x[..., None], x)
    metric = PrecisionRecall()
    metric.update_state(x)
    with pytest.raises(ValueError, match="reference features before result"):
        metric.result()
    with pytest.raises(ValueError, match="as wide as the reference's, 3. Received: 2"):
        metric.update_state(x[:, :2])
    with pytest.raises(ValueError, match="Expected metrics of PrecisionRecall"):
        metric.merge_state([keras.metrics.Mean()])


def test_config():
    metric = PrecisionRecall.from_config(PrecisionRecall(nearest_k=5, name="pr").get_config())
    assert metric.nearest_k == 5 and metric.name == "pr"
