import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vqvae2.metrics import InceptionScore, inception_score


def by_scipy(probabilities, splits):
    count, scores = len(probabilities), []
    for i in range(splits):
        part = probabilities[i * count // splits : (i + 1) * count // splits]
        marginal = part.mean(axis=0, keepdims=True)
        scores.append(np.exp(scipy.stats.entropy(part, marginal, axis=1).mean()))
    return np.mean(scores), np.std(scores)


def softmax(rng, count, classes, scale=1.0):
    return scipy.special.softmax(scale * rng.normal(size=(count, classes)), axis=1)


def test_equals_the_golden_file(golden):
    content = golden("metrics")
    score, deviation = inception_score(content["class_probabilities"], splits=1)
    assert score == pytest.approx(content["inception_score_1_split"][0], rel=1e-9)
    assert deviation == 0.0


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(10, 99),
    classes=st.integers(1, 12),
    splits=st.integers(1, 10),
    scale=st.sampled_from([0.1, 1.0, 100.0]),  # the last one leaves numbers near zero
)
def test_equals_scipy(seed, count, classes, splits, scale):
    p = softmax(np.random.default_rng(seed), count, classes, scale)
    assert inception_score(p, splits) == pytest.approx(by_scipy(p, splits), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_takes_tensors_of_any_precision(dtype, rng):
    p = softmax(rng, 40, 10)
    tensor = keras.ops.convert_to_tensor(p.astype(dtype))
    assert inception_score(tensor) == pytest.approx(inception_score(p), rel=1e-2)


def test_streaming_deals_samples_to_the_splits_in_turn(rng):
    p = softmax(rng, 60, 7, 3.0)
    metric = InceptionScore(splits=4)
    for batch in np.split(p, [1, 3, 20]):
        metric.update_state(batch)
    expected = inception_score(np.concatenate([p[i::4] for i in range(4)]), 4)
    assert tuple(metric.result().values()) == pytest.approx(expected, rel=1e-12)
    assert list(metric.result()) == ["inception_score", "standard_deviation"]
    metric.reset_state()
    metric.update_state(p[:8])
    expected = inception_score(np.concatenate([p[i:8:4] for i in range(4)]), 4)
    assert tuple(metric.result().values()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("first", [0, 8, 13])
def test_two_replicas_equal_one(first, rng):
    p = softmax(rng, 40, 7, 3.0)
    one, left, right = (InceptionScore(splits=4) for _ in range(3))
    one.update_state(p)
    if first:
        left.update_state(p[:first])
    right.update_state(p[first:])
    left.merge_state([right, InceptionScore(splits=4)])
    assert left.result() == pytest.approx(one.result(), rel=1e-12)


def test_errors(rng):
    p = softmax(rng, 20, 5)
    with pytest.raises(ValueError, match="not negative and of sum 1; .* row 0 with sum 2"):
        inception_score(2.0 * p)
    with pytest.raises(ValueError, match="row 3 with sum 1 and minimum -0.5"):
        inception_score(np.where(np.arange(20)[:, None] == 3, [-0.5, 1.5, 0, 0, 0], p))
    with pytest.raises(ValueError, match="row 0 with sum nan"):
        inception_score(np.full((20, 5), np.nan))
    with pytest.raises(ValueError, match=r"\(samples, classes\). Received: shape \(5,\)"):
        inception_score(p[0])
    with pytest.raises(ValueError, match="as many samples as splits, 10. Received: 9"):
        inception_score(p[:9])
    with pytest.raises(ValueError, match="splits=0"):
        inception_score(p, splits=0)
    with pytest.raises(ValueError, match="splits=2.5"):
        InceptionScore(splits=2.5)
    metric = InceptionScore(splits=2)
    with pytest.raises(ValueError, match="before result"):
        metric.result()
    metric.update_state(p)
    with pytest.raises(ValueError, match="Expected 5 classes, as before. Received: 6"):
        metric.update_state(softmax(rng, 3, 6))
    with pytest.raises(ValueError, match="InceptionScore metrics of 2 splits"):
        metric.merge_state([InceptionScore(splits=3)])


def test_config():
    metric = InceptionScore.from_config(InceptionScore(3, name="is_of_samples").get_config())
    assert metric.splits == 3 and metric.name == "is_of_samples"
