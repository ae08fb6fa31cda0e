import numpy as np
import pytest

from keras_vqvae2.evaluation import nearest_images


@pytest.fixture
def images(rng):
    return rng.integers(256, size=(5, 8, 12, 3), dtype="uint8")


def test_nearest_images_by_small_pixels_mirrored_or_not(images):
    queries = np.stack([images[3], images[1][:, ::-1], images[4]]) / 255.0
    queries[2] += 0.1 * (queries[2] < 0.9)
    places, distances = nearest_images(queries.astype("float32"), images)
    np.testing.assert_array_equal(places, [3, 1, 4])
    np.testing.assert_allclose(distances[:2], 0, atol=1e-3)
    small = lambda x: x.reshape(2, 4, 3, 4, 3).mean(axis=(1, 3))  # noqa: E731
    expected = np.sqrt(((small(queries[2]) - small(images[4] / 255)) ** 2).mean())
    np.testing.assert_allclose(distances[2], expected, rtol=1e-3)


def test_more_queries_than_are_compared_at_once(images, rng):
    queries = images[rng.integers(5, size=600)]
    places, distances = nearest_images(queries, images, factor=1)
    np.testing.assert_array_equal(queries, images[places])
    assert distances.shape == (600,) and distances.max() < 1e-3


def test_what_does_not_fit_is_refused(images):
    cases = [
        ((images[:, :4], images), r"shape \(N, 8, 12, 3\). Received: shape \(5, 4, 12, 3\)"),
        ((images, images, 5), "multiples of 5"),
        ((images[:0], images), "at least one image. Received: queries"),
        ((images, images[:0]), "at least one image. Received: images"),
        ((images / 1.0, images), r"Expected pixels in \[0, 1\].* Received: queries"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            nearest_images(*arguments)
