import keras

from keras_vqvae2.models.layout_maps import new_layout_map


def get_layout_map(
    device_mesh: keras.distribution.DeviceMesh,
    model_parallel_dim_name: str = "model",
    data_parallel_dim_name: str = "batch",
) -> keras.distribution.LayoutMap:
    """The layout of a transformer prior's weights over devices, for `ModelParallel` (JAX).

    Megatron's: heads of attention and the width of the feed-forward parts are split, so a block
    needs two sums over the model axis forward, and two backward. Embeddings are split over their
    channels, logits over the codes. Norms, labels and absolute positions are whole on each device.

    The model axis has to divide `hidden_units`, `feed_forward_units` and `num_embeddings`, and
    should divide `num_heads`; the batch axis has to divide the batches.

    Args:
        device_mesh: `keras.distribution.DeviceMesh` with the two axes.
        model_parallel_dim_name: Name of the axis over which weights are split.
        data_parallel_dim_name: Name of the axis over which the batch is split.

    Returns:
        `keras.distribution.LayoutMap`.

    Raises:
        NotImplementedError: On TensorFlow and PyTorch, where Keras would leave weights whole.
        ValueError: If the mesh is none, or lacks an axis.

    Example:

    ```
    import keras
    import keras_vqvae2

    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((1, len(devices)), ("batch", "model"), devices)
    layout_map = keras_vqvae2.TransformerPrior.get_layout_map(mesh)
    split = keras.distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch")
    with split.scope():
        prior = keras_vqvae2.TransformerPrior((4, 4), hidden_units=32, num_layers=1, num_heads=8)
    print(layout_map["block_0/attention/query/kernel"].axes)  # (None, 'model')
    ```

    Reference:
        - Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053, section 3.
    """
    model, batch = model_parallel_dim_name, data_parallel_dim_name
    layouts = new_layout_map(device_mesh, model, batch)
    wide = "(attention/(query|key|value)|gate|up)"
    layouts[f".*/{wide}/kernel"] = (None, model)  # (in, out)
    layouts[f".*/{wide}/bias"] = (model,)
    layouts[".*/(attention/output|down)/kernel"] = (model, None)
    layouts["((.*/codes|words)/embeddings|(.*/upsampler|logits)/kernel)"] = (None, model)
    # Without these XLA splits the stream between blocks too.
    layouts[r"[^/]+/block_\d+/output"] = (batch, None, None)
    layouts["[^/]+/conditioner_[^/]*/output"] = (batch, None, None, None)
    return layouts
