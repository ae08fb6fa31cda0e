import keras

from keras_vqvae2.models.layout_maps import new_layout_map

BLOCK = r".*/(block_\d+|layer_\d+|(key|query|out)_block)"
CODES = "(first|embedding|conditioner_[^/]*/conv)"


def get_layout_map(
    device_mesh: keras.distribution.DeviceMesh,
    model_parallel_dim_name: str = "model",
    data_parallel_dim_name: str = "batch",
) -> keras.distribution.LayoutMap:
    """The layout of a prior's weights over devices, for `keras.distribution.ModelParallel` (JAX).

    A residual block's first convolution is split over its output channels and the second over its
    input channels, heads of attention over devices: a block needs one sum over the model axis
    forward, and one backward. What lies between blocks is whole on each device of that axis. Whole
    are also label tables, the row context and what ends a block without attention, up to 2 % of the
    paper's priors: splitting them would cost more traffic than it saves memory.

    Optimizer state and gradients are split as their weights are. The model axis has to divide
    `residual_units`, `condition_residual_units`, `hidden_units`, `attention_units` and
    `num_embeddings`, and should divide `attention_heads`; the batch axis has to divide the batches.

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
    layout_map = keras_vqvae2.PixelSnailPrior.get_layout_map(mesh)
    split = keras.distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch")
    with split.scope():
        prior = keras_vqvae2.PixelSnailPrior(
            (4, 4), hidden_units=16, residual_units=32, num_blocks=1, output_blocks=1
        )
    print(layout_map["block_0/layer_0/conv_1/kernel"].axes)  # (None, None, None, 'model')
    ```

    Reference:
        - Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053, section 3.
    """
    model, batch = model_parallel_dim_name, data_parallel_dim_name
    layouts = new_layout_map(device_mesh, model, batch)
    for layers in (rf"{BLOCK}/(conv_1|auxiliary_projection)", CODES, "output_stack/logits"):
        layouts[f"{layers}/kernel"] = (None, None, None, model)  # (rows, columns, in, out)
        layouts[f"{layers}/bias"] = (model,)
    layouts[rf"{BLOCK}/conv_2/kernel"] = (None, None, model, None)
    # XLA adds its partial sums to those of conv_2 before it sums over devices.
    layouts[rf"{BLOCK}/condition_projection/kernel"] = (model, None)  # (in, out)
    layouts["conditioner_[^/]*/upsampler/kernel"] = (None, None, None, model)  # (.., out, in)
    layouts[".*/attention/(query|key|value)/kernel"] = (None, model)  # (in, heads * d)
    layouts[".*/attention/(query|key|value)/bias"] = (model,)
    # Without these XLA splits the stream too, and sends halves of the gates between devices.
    for layers in (BLOCK, "[^/]+/(first|embedding|conditioner_[^/]*)"):
        layouts[f"{layers}/output"] = (batch, None, None, None)
    return layouts
