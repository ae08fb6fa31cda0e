import keras
import numpy as np
import pytest

MICRO, SIZE, STEPS = 3, 2, 2


@pytest.fixture
def train(make):
    """`train(codes, batch_size, weights)`: weights and history of a small prior after `fit`."""

    def run(codes, batch_size, weights=None, **arguments):
        prior = make((4, 4), attention_heads=0, num_blocks=1)
        optimizer = keras.optimizers.Adam(1e-2, epsilon=1e-3, **arguments)
        prior.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")
        start = [keras.ops.convert_to_numpy(v) for v in prior.trainable_variables]
        # Keras hands weights on only beside targets; the prior does not look at those.
        history = prior.fit(
            codes, weights, batch_size, sample_weight=weights, shuffle=False, verbose=0
        ).history
        end = [keras.ops.convert_to_numpy(v) for v in prior.trainable_variables]
        assert max(np.abs(a - b).max() for a, b in zip(start, end)) > 1e-3
        return end, {**history, "updates": int(prior.optimizer.iterations)}

    return run


def draw(count):
    rng = np.random.default_rng(0)
    return {"top": rng.integers(12, size=(count, 4, 4))}


def test_micro_batches_add_up_to_the_batch(train):
    codes = draw(STEPS * MICRO * SIZE)
    whole, _ = train(codes, MICRO * SIZE)
    parts, history = train(codes, SIZE, gradient_accumulation_steps=MICRO)
    assert history["updates"] == STEPS and history["skipped_steps"] == [0.0]
    for a, b in zip(parts, whole):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_next_micro_batch_takes_the_place_of_one_that_is_not_finite(train):
    codes = draw((MICRO + 1) * SIZE)
    weights = np.ones((MICRO + 1) * SIZE, "float32")
    weights[SIZE] = np.nan  # in the second
    bad, history = train(codes, SIZE, weights, gradient_accumulation_steps=MICRO)
    assert history["skipped_steps"] == [1.0] and history["updates"] == 1
    others = np.arange(len(weights)) // SIZE != 1
    good, _ = train({"top": codes["top"][others]}, MICRO * SIZE)
    for a, b in zip(bad, good):
        np.testing.assert_allclose(a, b, atol=1e-5)
