import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2
from keras_vqvae2.validation import (
    bind_arguments,
    check_codes,
    check_images,
    check_positive,
    first_batch,
    height_and_width,
    weigh_examples,
)


def test_positive_integers_pass():
    check_positive(a=1, b=np.int64(3))


@pytest.mark.parametrize("value", [0, -1, 1.5, None, "many", float("nan"), float("inf"), [1]])
def test_anything_else_is_named(value):
    with pytest.raises(ValueError, match="Expected a positive integer. Received: size="):
        check_positive(other=1, size=value)


@pytest.mark.parametrize("size", [8, np.int64(8), (8, 8), np.array([8, 8]), [np.int32(8), 8]])
def test_sizes_are_integers_of_any_kind(size):
    assert height_and_width(size) == (8, 8)


@pytest.mark.parametrize("size", [8.0, (8.0, 8), 0, (8,), (8, 8, 3), "8", None, (8, -1)])
def test_other_sizes_are_named(size):
    with pytest.raises(
        ValueError, match=r"positive integer or \(height, width\). Received: image_"
    ):
        height_and_width(size)


def test_codes_of_any_integer_type_pass():
    for dtype in ("uint8", "int64"):
        codes = np.arange(8, dtype=dtype).reshape(2, 2, 2)
        np.testing.assert_array_equal(check_codes(codes, 8), codes)
    assert check_codes(np.array([[[-1]]]), 8, (1, 1), low=-1) == -1


@pytest.mark.parametrize(
    "codes, message",
    [
        (np.zeros((2, 2), int), r"shape \(batch, 3, 4\)"),
        (np.zeros((2, 3, 5), int), r"shape \(batch, 3, 4\).*\(2, 3, 5\)"),
        (np.zeros((0, 3, 4), int), "at least one"),
        (np.zeros((1, 3, 4)), "dtype float64"),
        (np.full((1, 3, 4), -1), r"in \[0, 8\).*from -1 to -1"),
        (np.full((1, 3, 4), 8), r"in \[0, 8\).*from 8 to 8"),
    ],
)
def test_other_codes_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        check_codes(codes, 8, (3, 4))


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
            np.testing.assert_array_equal(first_batch(dataset)[0], [0, 1])
        assert len(list(dataset)) == 3


def test_a_loader_of_pytorch_shows_its_first_examples_and_keeps_its_order():
    data = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    pairs = data.TensorDataset(torch.arange(6.0), torch.arange(6))
    loader = data.DataLoader(pairs, 4, shuffle=True, generator=torch.Generator().manual_seed(0))
    again = data.DataLoader(pairs, 4, shuffle=True, generator=torch.Generator().manual_seed(0))
    assert first_batch(loader)[0].tolist() == [0.0, 1.0, 2.0, 3.0]
    for (a, _), (b, _) in zip(loader, again, strict=True):
        assert a.tolist() == b.tolist()
    with pytest.raises(ValueError, match="an empty data set"):
        first_batch(data.DataLoader(data.TensorDataset(torch.zeros(0)), 4))
    batches = data.DataLoader(pairs, batch_size=None)
    assert first_batch(batches) == (None, batches)


def test_a_tf_data_set_shows_its_first_batch():
    tf = pytest.importorskip("tensorflow")
    batches = tf.data.Dataset.from_tensor_slices({"top": ARRAY}).batch(2)
    np.testing.assert_array_equal(first_batch(batches)[0]["top"], [0, 1])
    pairs = tf.data.Dataset.from_tensor_slices((ARRAY, ARRAY + 1)).batch(2)
    np.testing.assert_array_equal(first_batch(pairs)[0], [0, 1])


def test_an_empty_data_set():
    grain = pytest.importorskip("grain")
    empty = grain.MapDataset.source([]).to_iter_dataset()
    with pytest.raises(ValueError, match="at least one batch. Received: an empty data set"):
        first_batch(empty)


def test_arrays_and_their_dicts_are_shown_whole():
    arrays = {"top": ARRAY}
    assert first_batch(ARRAY)[0] is ARRAY and first_batch(arrays)[0] is arrays
    tensor = keras.ops.convert_to_tensor(ARRAY)
    assert first_batch(tensor)[0] is tensor


def test_of_a_generator_the_first_batch_is_put_back():
    first, source = first_batch(i for i in range(3))
    assert first == 0 and list(source) == [0, 1, 2]


def test_what_cannot_start_again_is_left_alone():
    rest = iter([1, 2])
    assert first_batch(rest) == (None, rest) and list(rest) == [1, 2]


@pytest.mark.parametrize("source", [[ARRAY, ARRAY], (ARRAY,)])
def test_a_list_of_images_is_no_batch(source):
    with pytest.raises(ValueError, match=f"Received: a {type(source).__name__} of .*numpy.stack"):
        first_batch(source)


def test_weights_need_a_y_where_keras_would_drop_them():
    weights = np.ones(6)
    message = "Expected a y beside the sample weights.*Received: y=None"
    for kwargs in ({"sample_weight": weights}, {"sample_weight": weights, "y": None}):
        for method in ("fit", "evaluate"):
            for x in (ARRAY, {"top": ARRAY}):
                with pytest.raises(ValueError, match=message):
                    bind_arguments(method, x, (), kwargs)
    with pytest.raises(ValueError, match=message):  # by position
        bind_arguments("evaluate", ARRAY, (None, 2, 0, weights), {})
    validation = {"validation_data": (ARRAY, None, weights)}
    with pytest.raises(ValueError, match="y=None in validation_data"):
        bind_arguments("fit", ARRAY, (), validation)


def test_weights_beside_a_y_or_in_a_data_set_pass():
    weights = np.ones(6)
    bind_arguments("fit", ARRAY, (ARRAY,), {"sample_weight": weights})
    bind_arguments("fit", ARRAY, (), {"validation_data": (ARRAY, ARRAY, weights)})
    bind_arguments("fit", ARRAY, (), {"validation_data": ARRAY, "epochs": 2})
    bind_arguments("evaluate", iter([(ARRAY, ARRAY, weights)]), (), {})
    # Of a data set Keras itself refuses them.
    bind_arguments("fit", iter([ARRAY]), (), {"sample_weight": weights})


@pytest.fixture(scope="module")
def check():
    """How a model looks at the images that it is given."""
    model = VQVAE2((16, 16, 3), hidden_units=2, residual_units=1, num_embeddings=2, embedding_dim=1)
    return lambda source: model._check_data(source, with_loss=True)


def dataset(images):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(images).batch(2)


class Batches(keras.utils.PyDataset):
    def __init__(self, images, labels=None):
        super().__init__()
        self.images = images
        self.labels = labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        batch = self.images[index : index + 1]
        return batch if self.labels is None else (batch, self.labels[index : index + 1])


@pytest.mark.parametrize("source", [dataset, Batches])
def test_the_first_batch_of_a_data_set_is_checked(source, check):
    good = np.zeros((2, 16, 16, 3), "float32")
    check(source(good))
    for bad, message in [
        (good + 200, "pixels from 200 to 200"),
        (good[:, :12], "multiples of 8"),
        (good[..., :1], r"\(batch, height, width, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            check(source(bad))


def test_labels_beside_images_are_passed_over(check):
    tf = pytest.importorskip("tensorflow")
    images = np.zeros((2, 16, 16, 3), "float32")
    check(Batches(images, np.zeros(2)))
    check(tf.data.Dataset.from_tensors((images, np.zeros(2))))


def test_an_empty_data_set_of_images(check):
    empty = dataset(np.zeros((2, 16, 16, 3), "float32")).take(0)
    with pytest.raises(ValueError, match="empty data set"):
        check(empty)


def test_a_generator_is_checked_and_not_consumed(check):
    assert len(list(check(np.zeros((1, 16, 16, 3)) for _ in range(3)))) == 3
    with pytest.raises(ValueError, match="pixels from 200 to 200"):
        check(np.full((1, 16, 16, 3), 200.0) for _ in range(3))


@pytest.mark.parametrize("where", [0, 63, 64, 129])
def test_a_bad_pixel_is_found_wherever_it_is(where):
    images = np.zeros((130, 4, 4, 1), "float32")
    images[where, 1, 2] = 1.5
    with pytest.raises(ValueError, match="pixels from 0 to 1.5"):
        check_images(images, 1)


def test_nan_passes_for_the_guard_to_count(check):
    images = np.full((1, 16, 16, 3), np.nan, "float32")
    check(images)


def test_nan_hides_no_other_pixel_and_may_be_refused():
    images = np.zeros((70, 4, 4, 1), "float32")
    images[65, 0, 0] = np.nan
    check_images(images, 1, nan_passes=True)
    with pytest.raises(ValueError, match="images with NaN in 1 of 70 images"):
        check_images(images, 1)
    images[65, 1, 1] = 200.0
    with pytest.raises(ValueError, match="pixels from 0 to 200"):
        check_images(images, 1, nan_passes=True)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_weights_are_of_examples(shape):
    weighed = weigh_examples(ops.array([1.0, 2.0, 3.0]), np.array([1, 0, 2]).reshape(shape))
    np.testing.assert_array_equal(ops.convert_to_numpy(weighed), [1, 0, 6])
    with pytest.raises(ValueError, match=r"shape \(batch,\). Received: .* shape \(3, 2\)"):
        weigh_examples(ops.array([1.0, 2.0, 3.0]), np.ones((3, 2)))


def test_weights_of_classes_need_classes():
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    model.compile("adam")
    with pytest.raises(ValueError, match="a y that class_weight can weigh. Received: y=None"):
        model.fit(np.zeros((2, 16, 16, 3), "float32"), class_weight={0: 1.0})


def test_nan_is_not_encoded():
    images = np.zeros((2, 16, 16, 3), "float32")
    images[1, 2, 2] = np.nan
    with pytest.raises(ValueError, match="NaN in 1 of 2 images"):
        VQVAE2((16, 16, 3), hidden_units=8, residual_units=4).encode(images)
