"""`engine="grain"`: the batches of tf.data, but for the draws of shuffle, crops and flips."""

import itertools
import json
import pickle
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2, PixelSnailPrior
from keras_vqvae2.codes import codes_from_tfds, encode_dataset
from keras_vqvae2.data import images_from_folder

grain = pytest.importorskip("grain")

COUNT = 11
HIDE = """
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, path=None, target=None: (
    None if name.split(".")[0] in {names} else find(name, path, target)
)
"""


def pixels(i):
    return np.random.default_rng(i).integers(256, size=(20, 24, 3), dtype="uint8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(COUNT):
        path = folder / f"class_{i // 4}" / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(i)).save(path)
    return folder


@pytest.fixture(scope="module")
def codes(tmp_path_factory, folder):
    keras.utils.set_random_seed(0)
    vqvae = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, num_embeddings=16)
    images = images_from_folder(folder, 16, batch_size=4, labels=True)
    (batch,) = images_from_folder(folder, 16)
    maps = vqvae.encode(batch)["bottom"]
    assert len({map.tobytes() for map in maps}) == COUNT  # or no order would show
    return encode_dataset(vqvae, images, tmp_path_factory.mktemp("codes"), verbose=0)


def run_without(names, code):
    """What the code prints in a process that has not got these packages."""
    command = [sys.executable, "-c", HIDE.format(names=names) + code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def first(dataset, count=None):
    return list(itertools.islice(dataset, count))


def assert_equal(a, b):
    keras.tree.map_structure(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"labels": True, "drop_remainder": True, "start_step": 1},
        {"repeat": True, "start_step": 2, "resize": 18},
        {"num_processes": 2, "process_index": 1, "drop_remainder": True},
        {"augment": [lambda x: x * 2, lambda x: x - 0.1]},
        {"start_step": 9},
    ],
)
def test_images_are_those_of_tf_data(folder, options):
    ours, theirs = (
        first(images_from_folder(folder, 17, 4, engine=engine, **options), 7)
        for engine in ("grain", "tf.data")
    )
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        b = keras.tree.map_structure(np.asarray, b)
        assert keras.tree.map_structure(lambda x: (x.shape, x.dtype), a) == (
            keras.tree.map_structure(lambda x: (x.shape, x.dtype), b)
        )
        keras.tree.map_structure(
            # `augment` multiplies and adds in one rounding or in two.
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6 * ("augment" in options)), a, b
        )  # fmt: skip


def test_orders_crops_and_flips_depend_on_seed_and_position_alone(folder):
    options = {"shuffle": True, "repeat": True, "crop": "random", "flip": True, "resize": False}
    options |= {"engine": "grain", "batch_size": 4, "labels": True, "seed": -3}
    whole = first(images_from_folder(folder, 16, **options), 8)
    assert_equal(first(images_from_folder(folder, 16, start_step=5, **options), 3), whole[5:])
    shares = [
        first(images_from_folder(folder, 16, num_processes=2, process_index=i, **options), 8)
        for i in range(2)
    ]
    for expected, *parts in zip(whole, *shares):
        assert_equal(tuple(np.concatenate(part) for part in zip(*parts)), expected)
    with pytest.raises(AssertionError):
        assert_equal(first(images_from_folder(folder, 16, **{**options, "seed": 1}), 8), whole)


def test_an_epoch_is_a_permutation_and_crops_and_flips_vary(folder):
    options = {"shuffle": True, "repeat": True, "crop": "random", "flip": True, "resize": False}
    stream = images_from_folder(folder, (20, 16), COUNT, engine="grain", **options)
    orders, cuts = [], set()
    for batch in first(stream, 20):
        order = []
        for image in np.round(batch * 255).astype("uint8"):
            for i, left, mirrored in itertools.product(range(COUNT), range(9), (False, True)):
                part = pixels(i)[:, left : left + 16]
                if (image == (part[:, ::-1] if mirrored else part)).all():
                    order.append(i)
                    cuts.add((left, mirrored))
        assert sorted(order) == list(range(COUNT))
        orders.append(tuple(order))
    assert len(set(orders)) == 20
    assert len(cuts) == 18


def test_files_that_do_not_decode_are_replaced(folder, tmp_path):
    for i in range(4):
        Image.fromarray(pixels(i)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"not an image")
    dataset = images_from_folder(tmp_path, (20, 24), 4, engine="grain")
    with pytest.warns(UserWarning, match="1 of 4 files do not decode and are replaced") as caught:
        (batch,) = dataset
    assert len(caught) == 1
    np.testing.assert_array_equal(np.round(batch[3] * 255), pixels(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(first(dataset)) == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"repeat": True, "start_step": 2}, {"num_processes": 2, "process_index": 1, "start": 1}],
)
def test_codes_are_those_of_tf_data(codes, options):
    options = {"drop_remainder": options.pop("start", 0) == 1, **options}
    ours = first(codes_from_tfds(codes, 4, engine="grain", **options), 5)
    theirs = first(codes_from_tfds(codes, 4, **options), 5)
    assert [list(batch) for batch in ours] == [["top", "bottom", "label"]] * len(theirs)
    assert all(array.dtype == np.int32 for batch in ours for array in batch.values())
    assert_equal(ours, [{name: a.numpy() for name, a in batch.items()} for batch in theirs])


@pytest.mark.parametrize("engine", ["tf.data", "grain"])
def test_shares_of_codes_make_the_batches_of_one_process(codes, engine):
    options = {"shuffle": True, "seed": 4, "engine": engine}
    whole = first(codes_from_tfds(codes, 4, **options))
    with pytest.warns(UserWarning, match="1 of the 3 examples"):
        shares = [
            first(codes_from_tfds(codes, 4, num_processes=2, process_index=i, **options))
            for i in range(2)
        ]
    assert [len(share) for share in shares] == [3, 3]
    for expected, *parts in zip(whole, *shares):
        for name in expected:
            several = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(several, expected[name][: len(several)])
    assert len(parts[0]["label"]) == 1


def test_feeds_fit(folder):
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, num_embeddings=16)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    options = {"engine": "grain", "shuffle": True, "repeat": True, "labels": True}
    images = images_from_folder(folder, 16, 4, **options)
    history = model.fit(images, steps_per_epoch=2, epochs=2, shuffle=False, verbose=0).history
    assert len(history["loss"]) == 2 and np.isfinite(history["loss"]).all()


@pytest.mark.slow
def test_codes_feed_fit(codes):
    prior = PixelSnailPrior(
        (2, 2), num_embeddings=16, hidden_units=8, residual_units=6, num_blocks=1, block_layers=1,
        kernel_size=3, attention_heads=2, condition_blocks=1, output_blocks=1,
    )  # fmt: skip
    prior.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    stream = codes_from_tfds(codes, 4, engine="grain", drop_remainder=True)
    assert np.isfinite(prior.fit(stream, shuffle=False, verbose=0).history["loss"]).all()


def test_worker_processes_can_read(folder):
    dataset = images_from_folder(folder, 16, 4, engine="grain", shuffle=True)
    cloudpickle = pytest.importorskip("cloudpickle")
    assert_equal(first(pickle.loads(cloudpickle.dumps(dataset))), first(dataset))


def test_works_without_tensorflow(folder, codes):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow is the backend")
    code = (
        "from keras_vqvae2.codes import codes_from_tfds\n"
        "from keras_vqvae2.data import images_from_folder\n"
        f"images = images_from_folder({str(folder)!r}, 16, 4, engine='grain', shuffle=True)\n"
        f"codes = codes_from_tfds({str(codes)!r}, 4, engine='grain')\n"
        "print([batch.shape[0] for batch in images], next(iter(codes))['top'].tolist())\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    expected = next(iter(codes_from_tfds(codes, 4)))["top"].numpy().tolist()
    assert (
        run_without(["tensorflow", "keras_cv"], code).strip() == f"[4, 4, 3] {json.dumps(expected)}"
    )


def test_unknown_engines_are_refused(folder, codes):
    with pytest.raises(ValueError, match="'tf.data' or 'grain'. Received: engine='pytorch'"):
        images_from_folder(folder, 16, engine="pytorch")
    with pytest.raises(ValueError, match="Received: engine=None"):
        codes_from_tfds(codes, engine=None)


def test_grain_is_named_when_it_is_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)  # imports of it fail
    with pytest.raises(ImportError, match="pip install grain"):
        images_from_folder(folder, 16, engine="grain")
