import keras
import numpy as np
import pytest
from keras_vqvae2.models.vqvae2.image_checks import check_source

tf = pytest.importorskip("tensorflow")


def dataset(images):
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
def test_the_first_batch_of_a_data_set_is_checked(source):
    good = np.zeros((2, 16, 16, 3), "float32")
    check_source(source(good), 3, 8)
    for bad, message in [
        (good + 200, "pixels from 200 to 200"),
        (good[:, :12], "multiples of 8"),
        (good[..., :1], r"\(batch, height, width, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_source(source(bad), 3, 8)


def test_labels_beside_images_are_passed_over():
    images = np.zeros((2, 16, 16, 3), "float32")
    check_source(Batches(images, np.zeros(2)), 3, 8)
    check_source(tf.data.Dataset.from_tensors((images, np.zeros(2))), 3, 8)


def test_an_empty_data_set():
    empty = dataset(np.zeros((2, 16, 16, 3), "float32")).take(0)
    with pytest.raises(ValueError, match="empty data set"):
        check_source(empty, 3, 8)


def test_a_generator_is_not_consumed():
    generator = (np.zeros((1, 16, 16, 3)) for _ in range(3))
    check_source(generator, 3, 8)
    assert len(list(generator)) == 3


def test_nan_passes_for_the_guard_to_count():
    images = np.full((1, 16, 16, 3), np.nan, "float32")
    check_source(images, 3, 8)
