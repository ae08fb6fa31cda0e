"""The presets of `HierarchicalImageGenerator`: a `VQVAE2` and its priors in one directory."""

IMAGE_GENERATOR_PRESETS = {
    "cartoonset_128": {
        "description": "Invents 128x128 drawn faces by hair colour: vqvae2_cartoonset_128, "
        "pixelsnail_cartoonset_128_top and pixelsnail_cartoonset_128_bottom. Credit: Cartoon Set, "
        "Google LLC, CC BY 4.0.",
        "image_shape": (128, 128, 3),
        "parameters": 1_846_775 + 2_898_416 + 4_349_232,
        "metrics": {"nats_per_image": 107.6, "bits_per_dim": 0.003159},
        "card": "docs/presets/cartoonset_128.md",
    },
    "clothing_64": {
        "description": "Invents 64x64 photographs of ten kinds of clothes: vqvae2_clothing_64, "
        "pixelsnail_clothing_64_top and pixelsnail_clothing_64_bottom.",
        "image_shape": (64, 64, 3),
        "parameters": 1_783_367 + 4_464_152 + 4_179_680,
        "metrics": {"nats_per_image": 1228, "bits_per_dim": 0.1442},
        "card": "docs/presets/clothing_64.md",
    },
    "eurosat_64": {
        "description": "Invents 64x64 satellite photographs of ten kinds of land cover: "
        "vqvae2_eurosat_64, pixelsnail_eurosat_64_top and pixelsnail_eurosat_64_bottom. Contains "
        "modified Copernicus Sentinel data.",
        "image_shape": (64, 64, 3),
        "parameters": 1_551_671 + 2_898_416 + 4_349_232,
        "metrics": {"nats_per_image": 343.5, "bits_per_dim": 0.04033},
        "card": "docs/presets/eurosat_64.md",
    },
    "imagenette_128": {
        "description": "Invents 128x128 images of Imagenette's ten classes: vqvae2_imagenette_128, "
        "pixelsnail_imagenette_128_top and pixelsnail_imagenette_128_bottom.",
        "image_shape": (128, 128, 3),
        "parameters": 1_783_367 + 4_461_848 + 4_227_424,
        "metrics": {"nats_per_image": 4634, "bits_per_dim": 0.136},
        "card": "docs/presets/imagenette_128.md",
    },
}
