import numpy as np
import pytest

from keras_vqvae2.data import Options, images_from_arrays


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 0}, "Received: image_size=0"),
        ({"image_size": (16, -1)}, r"Received: image_size=\(16, -1\)"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"crop": "top"}, "Received: crop='top'"),
        ({"resize": 0}, "Received: resize=0"),
        ({"start_step": -1}, "Received: start_step=-1"),
        ({"num_processes": 3}, "divisor of batch_size=32. Received: num_processes=3"),
        ({"num_processes": 0}, "Received: num_processes=0"),
        ({"num_processes": 2, "process_index": 2}, "0 to 1. Received: process_index=2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**{"image_size": 16, **options})


@pytest.mark.parametrize(
    "size, resize, image, expected",
    [
        ((16, 16), None, (32, 64), (16, 32)),
        ((16, 16), 20, (32, 64), (20, 40)),
        ((16, 16), False, (32, 64), (32, 64)),
        ((16, 16), False, (8, 64), (16, 128)),
        ((10, 30), None, (20, 20), (30, 30)),
    ],
)
def test_scaled_size(size, resize, image, expected):
    assert Options(size, resize=resize).scaled_size(*image) == expected


def test_augment_runs_on_float_batches_and_is_clipped(rng):
    images = rng.uniform(size=(5, 8, 8, 3)).astype("float32")
    labels = np.arange(5)
    dataset = images_from_arrays(
        images, labels=labels, batch_size=5, augment=[lambda x: x * 2, lambda x: x - 0.1]
    )
    ((batch, numbers),) = dataset.as_numpy_iterator()
    np.testing.assert_allclose(batch, np.clip(images * 2 - 0.1, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(numbers, labels)


def test_augment_with_keras_cv(rng):
    keras_cv = pytest.importorskip("keras_cv")
    images = np.clip(rng.normal(0.5, 0.1, size=(8, 16, 16, 3)), 0, 1).astype("float32")
    layer = keras_cv.layers.RandomBrightness(factor=(0.2, 0.2), value_range=(0, 1))
    (batch,) = images_from_arrays(images, batch_size=8, augment=layer).as_numpy_iterator()
    np.testing.assert_allclose(batch, np.clip(images + 0.2, 0, 1), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"repeat": True, "start_step": 2}, {"crop": "random", "flip": True, "drop_remainder": True}],
)
def test_shares_of_processes_make_the_batches_of_one(rng, options):
    images = rng.integers(256, size=(13, 9, 8, 3), dtype="uint8")
    options = {"batch_size": 4, "labels": np.arange(13), "shuffle": True, "seed": 5, **options}
    whole = images_from_arrays(images, 8, **options)
    shares = [
        images_from_arrays(images, 8, num_processes=4, process_index=i, **options) for i in range(4)
    ]
    sizes = {int(share.cardinality()) for share in shares}
    assert sizes == ({3} if "crop" in options else {-1})  # TensorFlow's word for infinite
    streams = [list(data.take(7).as_numpy_iterator()) for data in (whole, *shares)]
    assert len(streams[1]) == (3 if "crop" in options else 7)
    for expected, *parts in zip(*streams):
        assert {part[0].shape for part in parts} == {(1, 8, 8, 3)}
        for one, several in zip(expected, zip(*parts)):
            np.testing.assert_array_equal(np.concatenate(several), one)


def test_a_last_batch_is_shared_evenly(rng):
    images = np.linspace(0, 1, 11).reshape(-1, 1, 1, 1)

    def share(index, **options):
        options = {"batch_size": 4, "num_processes": 2, "process_index": index, **options}
        return [np.round(b * 10).ravel().tolist() for b in images_from_arrays(images, **options)]

    for index, rows in enumerate(([[0, 1], [4, 5], [8]], [[2, 3], [6, 7], [9]])):
        with pytest.warns(UserWarning, match="1 of the 3 examples .* among 2 processes") as caught:
            assert share(index) == rows
        assert len(caught) == 1
        assert share(index, drop_remainder=True) == rows[:2]
        assert share(index, start_step=1, drop_remainder=True) == rows[1:2]
