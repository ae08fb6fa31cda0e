from keras_vqvae2.data.image_arrays import images_from_arrays
from keras_vqvae2.data.image_file import read_image
from keras_vqvae2.data.image_folder import class_names, images_from_folder, list_images
from keras_vqvae2.data.pipeline import Options
from keras_vqvae2.data.sample_photographs import sample_photographs
from keras_vqvae2.data.tfds_images import images_from_tfds

__all__ = [
    "Options",
    "class_names",
    "images_from_arrays",
    "images_from_folder",
    "images_from_tfds",
    "list_images",
    "read_image",
    "sample_photographs",
]
