"""Batches of a data set that so many devices can share."""

import keras


def even_batches(dataset, devices):
    """The data set without what is left over of a last batch that devices cannot share out evenly.

    Devices' means weigh the same, so parts of different sizes would weigh their examples
    differently; JAX cannot split arrays in such parts at all.

    Args:
        dataset: A `tf.data.Dataset`; any other data set comes back as it is.
        devices: Positive integer.
    """
    if devices == 1 or not hasattr(dataset, "element_spec"):
        return dataset
    import tensorflow as tf  # a tf.data.Dataset, so it is installed

    def cut(*batch):
        size = tf.shape(keras.tree.flatten(batch)[0])[0] // devices * devices
        even = keras.tree.map_structure(lambda x: x[:size], batch)
        return even if len(even) > 1 else even[0]

    def some(*batch):
        return tf.shape(keras.tree.flatten(batch)[0])[0] > 0

    return dataset.map(cut).filter(some)
