"""The presets of `HierarchicalImageGenerator`: a `VQVAE2` and its priors in one directory."""

IMAGE_GENERATOR_PRESETS = {
    "imagenette_128": {
        "description": "Invents 128x128 images of Imagenette's ten classes: vqvae2_imagenette_128, "
        "pixelsnail_imagenette_128_top and pixelsnail_imagenette_128_bottom.",
        "image_shape": (128, 128, 3),
        "parameters": 1_783_367 + 4_461_848 + 4_227_424,
        "card": "docs/presets/imagenette_128.md",
    },
}
