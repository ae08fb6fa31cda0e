import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2.decoding.row_decoder import RowDecoder
from keras_vqvae2.decoding.sampling import Sampling
from keras_vqvae2.decoding.steps import Steps

CODES = 7


class SumOfNeighbours(Steps):
    """The code is `code above + code to the left + condition + label + 1`, without a doubt."""

    def __init__(self, scale):
        self.scale = scale

    def weights(self):
        return {"doubled": 2 * ops.convert_to_tensor(self.scale)}

    def cache(self, batch):
        return {"above": ops.zeros((batch, 4), "int32"), "rows": ops.zeros((batch,), "int32")}

    def start_row(self, weights, state, row, condition, labels):
        columns = state["above"] + ops.cast(condition[..., 0], "int32") + labels[:, None]
        return ops.equal(row, state["rows"][0]), columns, ops.zeros_like(labels)

    def step(self, weights, fixed, left, column, columns):
        code = (columns + left + 1) % CODES
        one_hot = ops.cast(ops.arange(CODES)[None] == code[:, None], "float32")
        return weights["doubled"] * ops.where(fixed, one_hot, -one_hot), left, column

    def remember(self, weights, left, column, columns, features, codes):
        return codes, codes + 0 * features

    def finish_row(self, weights, state, left, to_cache, row, codes):
        return {"above": to_cache, "rows": state["rows"] + 1}


@pytest.fixture(scope="module")
def scale():
    return keras.Variable(50.0, trainable=False)


@pytest.fixture(scope="module")
def decoder(scale):
    return RowDecoder(SumOfNeighbours(scale), [scale])


@pytest.fixture
def draw(decoder, rng):
    """`draw(given)`: maps of 3 rows and 4 columns, two at a time."""
    condition = ops.convert_to_tensor(rng.integers(CODES, size=(2, 3, 4, 1)).astype("float32"))
    labels = np.array([0, 3], "int32")

    def run(given):
        uniforms = np.full(given.shape, 0.5, "float32")
        rows = list(decoder.rows(Sampling(), given, uniforms, condition, labels))
        return np.stack([ops.convert_to_numpy(codes) for codes, _ in rows], axis=1)

    def expected(given):
        codes, extra = given.copy(), ops.convert_to_numpy(condition)[..., 0].astype(int)
        for at in np.ndindex(2, 3, 4):
            image, row, column = at
            if given[at] < 0:
                above = codes[image, row - 1, column] if row else 0
                left = codes[image, row, column - 1] if column else 0
                codes[at] = (above + left + extra[at] + labels[image] + 1) % CODES
        return codes

    return run, expected


def test_each_code_follows_from_those_before_it(draw):
    run, expected = draw
    nothing = np.full((2, 3, 4), -1, "int32")
    np.testing.assert_array_equal(run(nothing), expected(nothing))


def test_given_codes_stay_and_are_seen(draw, rng):
    run, expected = draw
    given = np.where(rng.random((2, 3, 4)) < 0.5, -1, rng.integers(CODES, size=(2, 3, 4)))
    given = given.astype("int32")
    np.testing.assert_array_equal(run(given), expected(given))


def test_logits_that_are_not_finite_draw_no_code(draw, scale):
    run, _ = draw
    given = np.full((2, 3, 4), -1, "int32")
    given[:, 0] = 1  # a row in which nothing is drawn
    scale.assign(np.nan)
    try:
        drawn = run(given)
        assert (drawn[:, 0] == 1).all() and (drawn[:, 1:] == -1).all()
        given[:] = 1
        assert (run(given) == 1).all()
    finally:
        scale.assign(50.0)


def test_memory_between_rows(decoder):
    assert decoder.cache_bytes(3) == 4 * (3 * 4 + 3)


class Kinds(SumOfNeighbours):
    """The same, plus 2 in odd columns, plus 1 in each row of the second and third kind."""

    def __init__(self, scale, row_kind, column_kind):
        super().__init__(scale)
        self.row_kind, self.column_kind = row_kind, column_kind

    def step(self, weights, fixed, left, column, columns):
        extra = 2 * self.column_kind + (self.row_kind > 0)
        return super().step(weights, fixed, left, column, columns[:, self.column_kind] + extra)

    def finish_row(self, weights, state, left, to_cache, row, codes):
        assert len(to_cache) == 2 and to_cache[0].shape == (2, 2)
        return {"above": codes, "rows": state["rows"] + 1}


def test_positions_of_several_kinds(draw, scale):
    kinds = [[Kinds(scale, row, column) for column in range(2)] for row in range(3)]
    decoder = RowDecoder(kinds, [scale])
    labels = np.array([0, 3], "int32")
    given = np.full((2, 3, 4), -1, "int32")
    given[:, 1, 1] = 5
    condition = ops.zeros((2, 3, 4, 1))
    rows = decoder.rows(Sampling(), given, np.full((2, 3, 4), 0.5, "float32"), condition, labels)
    drawn = np.stack([ops.convert_to_numpy(codes) for codes, _ in rows], axis=1)
    expected = given.copy()
    for at in np.ndindex(2, 3, 4):
        image, row, column = at
        if given[at] < 0:
            above = expected[image, row - 1, column] if row else 0
            left = expected[image, row, column - 1] if column else 0
            extra = 2 * (column % 2) + (row > 0)
            expected[at] = (above + left + labels[image] + 1 + extra) % CODES
    np.testing.assert_array_equal(drawn, expected)
