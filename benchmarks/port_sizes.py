"""Priors of 256x256 images: 32x32 and 64x64 codes, some 85 M parameters a level.

PixelSNAILs at the default sizes of the most used PyTorch port; transformers of 12 layers of 768
channels.
"""

PRIORS = ("pixelsnail", "transformer", "masked_transformer")


def port_prior(level, rows, small, name="pixelsnail"):
    """A prior of a level, with a map of so many rows and random weights; one of `PRIORS`."""
    import keras_vqvae2

    columns = (32 if level == "top" else 64) // (8 if small else 1)
    if name != "pixelsnail":
        sizes = {"hidden_units": 768, "num_layers": 12, "num_heads": 12, "feed_forward_units": 2048}
        if small:
            sizes = {"hidden_units": 16, "num_layers": 1, "num_heads": 2, "feed_forward_units": 32}
        cls = {
            "transformer": keras_vqvae2.TransformerPrior,
            "masked_transformer": keras_vqvae2.MaskedTransformerPrior,
        }[name]
        conditions = {"condition_factors": {"top": 2}} if level == "bottom" else {}
        return cls((rows, columns), level=level, **sizes, **conditions)
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
