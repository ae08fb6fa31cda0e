import keras
import numpy as np
import pytest
from keras_vqvae2.models.source_checks import check_weights, first_batch

ARRAY = np.arange(6)


def grain_datasets():
    grain = pytest.importorskip("grain")
    batches = grain.MapDataset.range(6).batch(2)
    loader = grain.DataLoader(
        data_source=ARRAY,
        sampler=grain.samplers.SequentialSampler(6),
        operations=[grain.transforms.Batch(2)],
    )
    return [batches, batches.to_iter_dataset(), loader]


def test_a_grain_data_set_shows_its_first_batch_and_starts_again():
    for dataset in grain_datasets():
        for _ in range(2):
            np.testing.assert_array_equal(first_batch(dataset), [0, 1])
        assert len(list(dataset)) == 3


def test_a_tf_data_set_shows_its_first_batch():
    tf = pytest.importorskip("tensorflow")
    batches = tf.data.Dataset.from_tensor_slices({"top": ARRAY}).batch(2)
    np.testing.assert_array_equal(first_batch(batches)["top"], [0, 1])
    pairs = tf.data.Dataset.from_tensor_slices((ARRAY, ARRAY + 1)).batch(2)
    np.testing.assert_array_equal(first_batch(pairs), [0, 1])


def test_an_empty_data_set():
    grain = pytest.importorskip("grain")
    empty = grain.MapDataset.source([]).to_iter_dataset()
    with pytest.raises(ValueError, match="at least one batch. Received: an empty data set"):
        first_batch(empty)


def test_arrays_and_their_dicts_are_shown_whole():
    arrays = {"top": ARRAY}
    assert first_batch(ARRAY) is ARRAY and first_batch(arrays) is arrays
    tensor = keras.ops.convert_to_tensor(ARRAY)
    assert first_batch(tensor) is tensor


def test_what_cannot_start_again_is_left_alone():
    generator = (i for i in range(3))
    assert first_batch(generator) is None and list(generator) == [0, 1, 2]


def test_weights_need_a_y_where_keras_would_drop_them():
    weights = np.ones(6)
    message = "Expected a y beside the sample weights.*Received: y=None"
    for kwargs in ({"sample_weight": weights}, {"sample_weight": weights, "y": None}):
        for method in ("fit", "evaluate"):
            for x in (ARRAY, {"top": ARRAY}):
                with pytest.raises(ValueError, match=message):
                    check_weights(method, x, (), kwargs)
    with pytest.raises(ValueError, match=message):  # by position
        check_weights("evaluate", ARRAY, (None, 2, 0, weights), {})
    validation = {"validation_data": (ARRAY, None, weights)}
    with pytest.raises(ValueError, match="y=None in validation_data"):
        check_weights("fit", ARRAY, (), validation)


def test_weights_beside_a_y_or_in_a_data_set_pass():
    weights = np.ones(6)
    check_weights("fit", ARRAY, (ARRAY,), {"sample_weight": weights})
    check_weights("fit", ARRAY, (), {"validation_data": (ARRAY, ARRAY, weights)})
    check_weights("fit", ARRAY, (), {"validation_data": ARRAY, "epochs": 2})
    check_weights("evaluate", iter([(ARRAY, ARRAY, weights)]), (), {})
    # Of a data set Keras itself refuses them.
    check_weights("fit", iter([ARRAY]), (), {"sample_weight": weights})
