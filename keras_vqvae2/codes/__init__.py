from keras_vqvae2.codes.codes_from_tfds import (
    codes_from_tfds,
    open_code_dataset,
    prior_arguments,
)
from keras_vqvae2.codes.encode_dataset import encode_dataset

__all__ = ["codes_from_tfds", "encode_dataset", "open_code_dataset", "prior_arguments"]
