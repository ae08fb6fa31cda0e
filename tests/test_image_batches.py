import numpy as np
import pytest
from keras import ops

from keras_vqvae2.image_batches import image_batches, to_unit_floats


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_to_unit_floats_makes_a_new_array(dtype):
    pixels = np.array([0, 1, 255], "uint8")
    images = pixels if dtype == "uint8" else (pixels / 255).astype(dtype)
    result = to_unit_floats(images)
    assert result.dtype == np.float32 and not np.shares_memory(result, images)
    np.testing.assert_allclose(result, [0, 1 / 255, 1], rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_tensors_of_floats_become_float32(dtype):
    result = to_unit_floats(ops.convert_to_tensor(np.array([0.0, 0.5, 1.0]), dtype=dtype))
    assert ops.is_tensor(result) and "float32" in str(result.dtype)
    np.testing.assert_array_equal(ops.convert_to_numpy(result), [0, 0.5, 1])


@pytest.mark.parametrize("convert", [np.array, ops.array])
def test_batches_of_an_array_and_of_batches(convert, rng):
    images = rng.uniform(size=(5, 2, 2, 3)).astype("float32")
    batches = list(image_batches(convert(images), 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), images)
    source = [convert(images[:3]), (convert(images[3:]), np.zeros(2))]
    batches = list(image_batches(source, 2))
    assert [len(batch) for batch in batches] == [3, 2]
    np.testing.assert_array_equal(np.concatenate(batches), images)
