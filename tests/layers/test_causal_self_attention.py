import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import CausalSelfAttention
from keras_vqvae2.layers.dropout import DrawnSeed


def numpy(x):
    return ops.convert_to_numpy(x)


def by_definition(query, source, attention):
    """One position and one head after the other, in NumPy."""
    batch, rows, columns, _ = query.shape
    length, heads = rows * columns, attention.num_heads
    q, k, v = (
        (x.reshape(batch, length, -1) @ numpy(p.kernel) + numpy(p.bias)).reshape(
            batch, length, heads, -1
        )
        for x, p in (
            (query, attention.query_projection),
            (source, attention.key_projection),
            (source, attention.value_projection),
        )
    )
    output = np.zeros_like(v)
    for b in range(batch):
        for h in range(heads):
            for p in range(1, length):
                scores = k[b, :p, h] @ q[b, p, h] / np.sqrt(q.shape[-1])
                weights = np.exp(scores - scores.max())
                output[b, p, h] = weights / weights.sum() @ v[b, :p, h]
    return output.reshape(batch, rows, columns, -1)


@pytest.mark.parametrize("query_chunk", [512, 5])
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_definition(rng, query_chunk, training):
    attention = CausalSelfAttention(8, num_heads=2, query_chunk=query_chunk)
    query = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    source = rng.normal(size=(2, 3, 4, 6)).astype("float32")
    result = numpy(attention(query, source, training=training))
    np.testing.assert_allclose(result, by_definition(query, source, attention), atol=1e-5)
    assert not result[:, 0, 0].any()


@pytest.mark.parametrize("training", [False, True])
def test_gradient_reaches_strictly_earlier_positions_only(rng, gradient, training):
    attention = CausalSelfAttention(8, num_heads=2, query_chunk=5)
    query = rng.normal(size=(1, 3, 4, 5)).astype("float32")
    source = rng.normal(size=(1, 3, 4, 6)).astype("float32")
    attention(query, source)
    for position in (0, 1, 6, 11):
        row, column = divmod(position, 4)
        reached = gradient(
            lambda s, r=row, c=column: attention(query, s, training=training)[:, r, c], source
        )
        reached = np.abs(reached).sum(axis=(0, 3)).ravel()
        assert (reached[:position] > 0).all()
        assert not reached[position:].any()


def test_position_by_position_equals_the_whole_map(rng):
    attention = CausalSelfAttention(8, num_heads=2)
    query = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    source = rng.normal(size=(2, 3, 4, 6)).astype("float32")
    whole = numpy(attention(query, source))
    cache, weights = attention._cache(2, 3, 4), attention._step_weights()
    for row in range(3):
        fixed, left = attention._start_row(cache, row)
        for column in range(4):
            at = (slice(None), row, column)
            y = attention._step(weights, fixed, left, column, ops.convert_to_tensor(query[at]))
            np.testing.assert_allclose(numpy(y), whole[at], atol=1e-5)
            left = attention._remember(weights, left, column, ops.convert_to_tensor(source[at]))
        cache = attention._finish_row(cache, left, row)


def test_float16_holds_scores_that_are_in_its_range_once_scaled(rng):
    attention = CausalSelfAttention(64, num_heads=1, dtype="mixed_float16")
    attention.build((1, 1, 4, 64), (1, 1, 4, 64))
    attention.built = True
    for projection in (attention.query_projection, attention.key_projection):
        projection.kernel.assign(np.eye(64))
    x = np.zeros((1, 1, 4, 64), "float32")
    x[..., 0] = 500.0, 520.0, 510.0, 1.0  # products up to 265,200, scaled 33,150
    x[..., 1:] = rng.normal(size=(1, 1, 4, 63))
    whole = numpy(attention(x, x)).astype("float32")
    np.testing.assert_allclose(whole, by_definition(x, x, attention), atol=0.2)
    weights = attention._step_weights()
    fixed, left = attention._start_row(attention._cache(1, 1, 4), 0)
    for column in range(4):
        here = ops.cast(x[:, 0, column], "float16")
        y = attention._step(weights, fixed, left, column, here)
        np.testing.assert_allclose(numpy(y), whole[:, 0, column], atol=0.2)
        left = attention._remember(weights, left, column, here)


def test_int8_projections_are_those_of_the_whole_map(rng):
    attention = CausalSelfAttention(8, num_heads=2)
    x = rng.normal(size=(2, 1, 4, 5)).astype("float32")
    exact = numpy(attention(x, x))
    for projection in (
        attention.query_projection,
        attention.key_projection,
        attention.value_projection,
    ):
        projection.quantize("int8")
    whole = numpy(attention(x, x))
    assert 0 < np.abs(whole - exact).max() < 0.05
    weights = attention._step_weights()
    fixed, left = attention._start_row(attention._cache(2, 1, 4), 0)
    for column in range(4):
        here = ops.convert_to_tensor(x[:, 0, column])
        y = attention._step(weights, fixed, left, column, here)
        np.testing.assert_allclose(numpy(y), whole[:, 0, column], atol=1e-5)
        left = attention._remember(weights, left, column, here)


def test_dropout_acts_in_training_only(rng):
    attention = CausalSelfAttention(8, num_heads=2, dropout=0.5)
    x = rng.normal(size=(1, 3, 3, 4)).astype("float32")
    plain = numpy(attention(x, x))
    assert not np.allclose(numpy(attention(x, x, training=True)), plain)
    np.testing.assert_array_equal(numpy(attention(x, x, training=False)), plain)


def test_the_gradient_drops_the_same_weights_as_the_output(rng, gradient):
    attention = CausalSelfAttention(8, num_heads=2, dropout=0.5, query_chunk=5)
    query = rng.normal(size=(1, 3, 4, 5)).astype("float32")
    source = rng.normal(size=(1, 3, 4, 6)).astype("float32")
    attention(query, source)
    seed = DrawnSeed(attention.seed_generator)

    def output(source):
        return attention(query, source, training=True, seed=seed)

    direction = rng.normal(size=source.shape).astype("float32")
    slope = np.sum(gradient(output, source) * direction)
    ends = [numpy(output(source + sign * 1e-2 * direction)).sum() for sign in (1, -1)]
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=0.02, abs=0.02)


def test_config():
    attention = CausalSelfAttention(8, num_heads=2, dropout=0.1, query_chunk=64)
    again = CausalSelfAttention.from_config(attention.get_config())
    assert again.get_config() == attention.get_config()


@pytest.mark.parametrize("kwargs", [{"units": 10, "num_heads": 4}, {"units": 8, "dropout": 1.0}])
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match="Received: "):
        CausalSelfAttention(**kwargs)
