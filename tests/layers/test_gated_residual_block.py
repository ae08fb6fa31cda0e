import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import GatedResidualBlock


def numpy(x):
    return ops.convert_to_numpy(x)


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def randomize(layer, rng):
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) * 0.5)


def test_equals_the_formula(rng):
    block = GatedResidualBlock(5, num_classes=3)
    x, auxiliary, condition = (rng.normal(size=(2, 4, 3, n)).astype("float32") for n in (6, 2, 7))
    labels = np.array([2, 0], "int32")
    block(x, auxiliary, condition, labels)
    randomize(block, rng)
    result = numpy(block(x, auxiliary, condition, labels))
    weight = {w.path.split("/", 1)[1]: numpy(w) for w in block.trainable_variables}
    hidden = elu(x) @ weight["conv_1/kernel"][0, 0] + weight["conv_1/bias"]
    hidden = hidden + elu(auxiliary) @ weight["auxiliary_projection/kernel"][0, 0]
    hidden = elu(hidden + weight["auxiliary_projection/bias"])
    gate = hidden @ weight["conv_2/kernel"][0, 0] + weight["conv_2/bias"]
    gate = gate + condition @ weight["condition_projection/kernel"]
    gate = gate + weight["label_table"][labels][:, None, None]
    expected = x + gate[..., :6] / (1 + np.exp(-gate[..., 6:]))
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize("conditioned", [False, True])
def test_position_by_position_equals_the_whole_map(rng, mask_type, conditioned):
    block = GatedResidualBlock(5, (5, 3), mask_type, num_classes=3 if conditioned else None)
    x = rng.normal(size=(2, 4, 6, 3)).astype("float32")
    condition = rng.normal(size=(2, 4, 6, 7)).astype("float32") if conditioned else None
    labels = np.array([2, 0], "int32") if conditioned else None
    block(x, condition=condition, labels=labels)
    randomize(block, rng)
    whole = numpy(block(x, condition=condition, labels=labels))
    caches, weights = block._cache(2, 6, 3), block._step_weights()
    for row in range(4):
        of_row = None if condition is None else ops.convert_to_tensor(condition[:, row])
        columns, left = block._start_row(weights, caches, of_row, labels)
        inputs = []
        for column in range(6):
            y, left, to_cache = block._step(
                weights,
                [part[:, column] for part in columns],
                left,
                ops.convert_to_tensor(x[:, row, column]),
            )
            inputs.append(to_cache)
            np.testing.assert_allclose(numpy(y), whole[:, row, column], atol=1e-4)
        rows = [ops.stack([pair[i] for pair in inputs], axis=1)[:, None] for i in range(2)]
        caches = [ops.concatenate([old[:, 1:], new], 1) for old, new in zip(caches, rows)]


def test_one_point_equals_the_whole_map(rng):
    block = GatedResidualBlock(5)
    x, auxiliary = (rng.normal(size=(2, 1, 1, n)).astype("float32") for n in (3, 4))
    whole = numpy(block(x, auxiliary))
    point = block._point(
        block._step_weights(),
        ops.convert_to_tensor(x[:, 0, 0]),
        ops.convert_to_tensor(auxiliary[:, 0, 0]),
    )
    np.testing.assert_allclose(numpy(point), whole[:, 0, 0], atol=1e-5)


def test_dropout_acts_in_training_only(rng):
    block = GatedResidualBlock(64, dropout=0.5)
    x = rng.normal(size=(1, 2, 2, 3)).astype("float32")
    block(x)
    randomize(block, rng)
    np.testing.assert_array_equal(numpy(block(x)), numpy(block(x, training=False)))
    assert not np.allclose(numpy(block(x, training=True)), numpy(block(x)))


def test_config():
    block = GatedResidualBlock(5, (5, 3), "B", dropout=0.1, num_classes=3)
    assert GatedResidualBlock.from_config(block.get_config()).get_config() == block.get_config()


def test_bad_dropout():
    with pytest.raises(ValueError, match="Received: dropout=1"):
        GatedResidualBlock(5, dropout=1)
