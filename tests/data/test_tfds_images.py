import numpy as np
import pytest

from keras_vqvae2.data import images_from_tfds

tfds = pytest.importorskip("tensorflow_datasets")
tf = pytest.importorskip("tensorflow")


def store(folder, features, examples):
    """Prepares a TFDS data set of a few examples."""
    spec = {name: tf.TensorSpec.from_tensor(tf.constant(v)) for name, v in examples[0].items()}
    dataset = tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=spec)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": dataset},
        data_dir=folder,
        disable_shuffling=True,
    )
    return folder / "tiny" / "1.0.0"


@pytest.fixture
def pixels(rng):
    return rng.integers(256, size=(6, 12, 14, 3), dtype="uint8")


@pytest.fixture
def prepared(tmp_path, pixels):
    features = {
        "image": tfds.features.Image(shape=(12, 14, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(num_classes=6),
    }
    examples = [{"image": image, "label": i} for i, image in enumerate(pixels)]
    return store(tmp_path, features, examples)


def test_reads_a_prepared_directory(prepared, pixels):
    dataset = images_from_tfds(prepared, (12, 14), 4, labels=True)
    batches = list(dataset.as_numpy_iterator())
    assert [len(x) for x, _ in batches] == [4, 2]
    images, labels = (np.concatenate(parts) for parts in zip(*batches))
    np.testing.assert_allclose(images, pixels[labels] / 255, atol=1e-6)
    assert sorted(labels) == list(range(6))


def test_crop_shuffle_repeat_and_start_step(prepared):
    options = {"shuffle": True, "repeat": True, "crop": "random", "flip": True, "seed": 2}
    whole = list(images_from_tfds(prepared, 8, 4, **options).take(4).as_numpy_iterator())
    rest = images_from_tfds(prepared, 8, 4, start_step=2, **options).take(2)
    for a, b in zip(whole[2:], rest.as_numpy_iterator(), strict=True):
        assert a.shape == (4, 8, 8, 3)
        np.testing.assert_array_equal(a, b)


def test_resizes(prepared):
    (batch,) = images_from_tfds(prepared, 6).as_numpy_iterator()
    assert batch.shape == (6, 6, 6, 3)
    assert batch.min() >= 0 and batch.max() <= 1


def test_grayscale_becomes_rgb(tmp_path, pixels):
    features = {"image": tfds.features.Image(shape=(12, 14, 1), encoding_format="png")}
    directory = store(tmp_path, features, [{"image": image[..., :1]} for image in pixels])
    (batch,) = images_from_tfds(directory, (12, 14)).as_numpy_iterator()
    np.testing.assert_allclose(batch, np.repeat(pixels[..., :1] / 255, 3, -1), atol=1e-6)
    with pytest.raises(ValueError, match=r"'label'.*tiny with the features \['image'\]"):
        images_from_tfds(directory, 12, labels=True)


def test_transparency_is_laid_on_white(tmp_path, rng):
    pixels = rng.integers(256, size=(3, 12, 14, 4), dtype="uint8")
    pixels[0] = 0, 200, 90, 255
    pixels[1] = 0, 200, 90, 0
    features = {"image": tfds.features.Image(shape=(None, None, 4), encoding_format="png")}
    directory = store(tmp_path, features, [{"image": image} for image in pixels])
    (batch,) = images_from_tfds(directory, (12, 14)).as_numpy_iterator()
    color, alpha = pixels[..., :3] / 255, pixels[..., 3:] / 255
    expected = color * alpha + 1 - alpha
    found = {tuple(np.round(image[0, 0], 2)): image for image in batch}
    for image in expected:
        close = found[tuple(np.round(image[0, 0], 2).astype("float32"))]
        np.testing.assert_allclose(close, image, atol=1e-6)


def test_slivers_are_not_blown_up(tmp_path):
    features = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="png")}
    directory = store(tmp_path, features, [{"image": np.full((1, 4000, 3), 7, "uint8")}])
    (batch,) = images_from_tfds(directory, 128).as_numpy_iterator()
    np.testing.assert_allclose(batch, np.full((1, 128, 128, 3), 7 / 255), atol=1e-6)


def test_bad_names(prepared, tmp_path):
    with pytest.raises(ValueError, match="Received: name_or_directory='no_such_data_set'"):
        images_from_tfds("no_such_data_set", 16)
    with pytest.raises(ValueError, match=r"\['train'\]. Received: split='dev'"):
        images_from_tfds(prepared, 16, split="dev")


def test_no_image_feature(tmp_path):
    features = {"text": tfds.features.Scalar(dtype=np.int64)}
    directory = store(tmp_path, features, [{"text": np.int64(1)}])
    with pytest.raises(ValueError, match=r"'image'.*features \['text'\]"):
        images_from_tfds(directory, 16)


def test_an_image_that_is_a_tensor(tmp_path):
    features = {"image": tfds.features.Tensor(shape=(4, 4, 3), dtype=np.float32)}
    directory = store(tmp_path, features, [{"image": np.zeros((4, 4, 3), "float32")}])
    with pytest.raises(ValueError, match="uint8 or uint16 pixels.*tiny with the feature image=Ten"):
        images_from_tfds(directory, 4)


@pytest.mark.parametrize("options", [{"repeat": True, "start_step": 1}, {"start_step": 1}, {}])
def test_shares_of_processes_make_the_batches_of_one(prepared, options):
    options = {"batch_size": 4, "shuffle": True, "crop": "random", "flip": True, **options}
    whole = images_from_tfds(prepared, 8, **options)
    shares = [
        images_from_tfds(prepared, 8, num_processes=2, process_index=i, **options) for i in range(2)
    ]
    # 6 examples: one full batch, and one of two examples.
    if "repeat" not in options:
        assert [len(share) for share in shares] == [len(whole)] * 2
    steps = zip(*[data.take(4).as_numpy_iterator() for data in (whole, *shares)], strict=True)
    for expected, *parts in steps:
        assert len({len(part) for part in parts}) == 1
        np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_examples_that_do_not_divide_among_processes(prepared, pixels):
    with pytest.warns(UserWarning, match="2 of the 2 examples .* among 4 processes"):
        share = images_from_tfds(prepared, (12, 14), 4, num_processes=4, process_index=3)
    (batch,) = share.as_numpy_iterator()
    assert batch.shape == (1, 12, 14, 3)
