"""Pass `e` over any source is epoch `e` of its repeated stream: the same order, crops and flips."""

import itertools

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2
from keras_vqvae2.codes import codes_from_tfds, encode_dataset
from keras_vqvae2.data import images_from_arrays, images_from_folder, images_from_tfds

COUNT = 12  # divides into batches of 4, so that the repeated stream's batches end with its epochs
DRAWN = {"shuffle": True, "seed": 3, "crop": "random", "flip": True, "resize": False}
SOURCES = ["arrays", "folder", "folder of grain", "tfds", "codes", "codes of grain"]


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(256, size=(COUNT, 20, 22, 3), dtype="uint8")


@pytest.fixture(scope="module")
def sources(tmp_path_factory, pixels):
    """Functions that open a source, by name."""
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    tfds, tf = pytest.importorskip("tensorflow_datasets"), pytest.importorskip("tensorflow")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(20, 22, 3))}),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices({"image": pixels})},
        data_dir=folder.parent,
    )
    keras.utils.set_random_seed(0)
    vqvae = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, num_embeddings=16)
    codes = encode_dataset(vqvae, pixels[:, :16, :16], folder.parent / "codes", verbose=0)

    def open_codes(crop, flip, resize, batch_size=4, **options):
        return codes_from_tfds(codes, batch_size, **options)

    def open_folder(**options):
        return images_from_folder(folder, 16, **options)

    return {
        "arrays": lambda **options: images_from_arrays(pixels, 16, **options),
        "folder": open_folder,
        "folder of grain": lambda **options: open_folder(engine="grain", **options),
        "tfds": lambda **options: images_from_tfds(folder.parent / "tiny/1.0.0", 16, **options),
        "codes": open_codes,
        "codes of grain": lambda **options: open_codes(engine="grain", **options),
    }


@pytest.fixture(params=SOURCES)
def source(request, sources):
    if "grain" in request.param:
        pytest.importorskip("grain")

    def read(count=None, **options):
        """Batches of a pass, as arrays; of several passes, if `count` is a list of numbers."""
        dataset = sources[request.param](**{"batch_size": 4, **DRAWN, **options})
        passes = [list(itertools.islice(dataset, c)) for c in np.atleast_1d(count)]
        passes = keras.tree.map_structure(np.asarray, passes)
        return passes if isinstance(count, list) else passes[0]

    return read


def assert_equal(a, b):
    keras.tree.assert_same_structure(a, b)
    keras.tree.map_structure(np.testing.assert_array_equal, a, b)


def differ(a, b):
    pairs = zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True)
    return any((x != y).any() for x, y in pairs)


def test_a_pass_is_an_epoch_of_the_repeated_stream(source):
    stream = source(9, repeat=True)
    first, second, third = passes = source([None] * 3)
    assert differ(first, second) and differ(second, third)
    assert_equal(list(itertools.chain(*passes)), stream)


def test_steps_left_out_and_several_processes_keep_the_epochs(source):
    stream = source(9, repeat=True)
    shares = [source([None] * 3, start_step=1, num_processes=2, process_index=i) for i in range(2)]
    for epoch in range(3):
        for step, parts in enumerate(zip(*(share[epoch] for share in shares), strict=True)):
            whole = keras.tree.map_structure(lambda *x: np.concatenate(x), *parts)
            assert_equal(whole, stream[3 * epoch + 1 + step])


def test_passes_that_do_not_change(source):
    first, second = source([None] * 2, reshuffle=False)
    assert_equal(first, second)
    assert_equal(source([None], start_step=2, reshuffle=False)[0], first[2:])
    calm = {"shuffle": False, "crop": "center", "flip": False}
    first, second = source([None] * 2, **calm)
    assert_equal(first, second)
    first, second = source([2] * 2, repeat=True)  # an endless stream starts where it started
    assert_equal(first, second)


def test_passes_end_with_batches_that_are_not_full(source):
    stream = np.concatenate([keras.tree.flatten(b)[0] for b in source(9, repeat=True)])
    for options, sizes in (({}, [5, 5, 2]), ({"drop_remainder": True}, [5, 5])):
        for epoch, batches in enumerate(source([None] * 2, batch_size=5, **options)):
            images = [keras.tree.flatten(batch)[0] for batch in batches]
            assert [len(batch) for batch in images] == sizes
            expected = stream[COUNT * epoch :][: sum(sizes)]
            np.testing.assert_array_equal(np.concatenate(images), expected)


@pytest.mark.parametrize("name", ["arrays", "folder of grain"])
def test_fit_sees_other_crops_each_epoch(sources, name):
    if "grain" in name:
        pytest.importorskip("grain")
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.0), "mse")  # nothing but the images changes

    def losses(**options):
        images = sources[name](batch_size=4, **DRAWN, **options)
        pairs = images.map(lambda batch: (batch, batch[:, 0, 0]))
        return model.fit(pairs, epochs=3, shuffle=False, verbose=0).history["loss"]

    assert len(set(np.round(losses(), 6))) == 3
    np.testing.assert_allclose(losses(reshuffle=False), losses(reshuffle=False)[::-1], rtol=1e-6)


def test_grain_goes_on_from_a_state(sources):
    pytest.importorskip("grain")
    dataset = sources["folder of grain"](batch_size=4, **DRAWN)
    passes = [list(dataset) for _ in range(3)]
    dataset = sources["folder of grain"](batch_size=4, **DRAWN)
    iter(dataset)  # never read, so it is no pass
    next(iter(dataset))
    iterator = iter(dataset)
    assert_equal(next(iterator), passes[1][0])
    state = iterator.get_state()
    other = sources["folder of grain"](batch_size=4, **DRAWN)
    iterator = iter(other)
    iterator.set_state(state)
    assert_equal(list(iterator), passes[1][1:])
    assert_equal(list(other), passes[2])


@pytest.mark.slow
def test_worker_processes_read_the_same_passes(sources):
    grain = pytest.importorskip("grain")
    pytest.importorskip("absl.flags").FLAGS.mark_as_parsed()  # as absl.app does; Grain asks them
    dataset, other = (sources["folder of grain"](batch_size=4, **DRAWN) for _ in range(2))
    other = other.mp_prefetch(grain.MultiprocessingOptions(num_workers=2))
    for _ in range(2):
        assert_equal(list(other), list(dataset))
