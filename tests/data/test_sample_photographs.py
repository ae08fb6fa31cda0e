import numpy as np

from keras_vqvae2.data import sample_photographs


def test_eight_photographs():
    images = sample_photographs()
    assert images.shape == (8, 128, 128, 3)
    assert images.dtype == np.uint8
    assert (images.std((1, 2, 3)) > 20).all()
    assert sample_photographs((64, 32)).shape == (8, 64, 32, 3)
