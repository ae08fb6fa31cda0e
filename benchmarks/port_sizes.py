"""The priors at the default sizes of the most used PyTorch port, for 256x256 images."""


def port_prior(level, rows, small):
    """The port's prior of a level, with a map of so many rows."""
    import keras_vqvae2

    columns = (32 if level == "top" else 64) // (8 if small else 1)
    sizes = {"hidden_units": 256, "residual_units": 256, "num_blocks": 4, "block_layers": 4}
    if small:
        sizes = {"hidden_units": 16, "residual_units": 16, "num_blocks": 2, "block_layers": 1}
    conditions = {}
    if level == "bottom":
        conditions = {"condition_factors": {"top": 2}, "condition_blocks": 3}
        conditions |= {"condition_kernel_size": 3}
    return keras_vqvae2.PixelSnailPrior(
        (rows, columns),
        level=level,
        kernel_size=(9, 5),
        first_kernel_size=5,
        mask_type="A",
        attention_heads=8 if level == "top" else 0,
        attend_to_codes=False,
        row_context=False,
        output_blocks=0,
        **sizes,
        **conditions,
    )
