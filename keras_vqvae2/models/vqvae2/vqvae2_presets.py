"""The presets of `VQVAE2`. An entry with a config is an architecture whose weights nobody has.

Metrics are those of the card: of held-out images, from examples/evaluate.py.
"""

VQVAE2_PRESETS = {
    "vqvae2_cartoonset_128": {
        "description": "Trained on drawn faces at 128x128, its decoder sharpened by LPIPS and a "
        "discriminator: maps of 4x4 and 8x8 codes.",
        "image_shape": (128, 128, 3),
        "parameters": 1_846_775,
        "metrics": {"psnr": 21.67, "ssim": 0.7431, "lpips": 0.05271},
        "directory": "cartoonset_128/vqvae",
        "card": "docs/presets/cartoonset_128.md",
    },
    "vqvae2_clothing_64": {
        "description": "Trained on photographs of clothes at 64x64, its decoder sharpened by LPIPS "
        "and a discriminator: maps of 8x8 and 16x16 codes.",
        "image_shape": (64, 64, 3),
        "parameters": 1_783_367,
        "metrics": {"psnr": 28.22, "ssim": 0.8439, "lpips": 0.03655},
        "directory": "clothing_64/vqvae",
        "card": "docs/presets/clothing_64.md",
    },
    "vqvae2_eurosat_64": {
        "description": "Trained on satellite photographs at 64x64, its decoder sharpened by LPIPS "
        "and a discriminator: maps of 4x4 and 8x8 codes.",
        "image_shape": (64, 64, 3),
        "parameters": 1_551_671,
        "metrics": {"psnr": 30.69, "ssim": 0.7365, "lpips": 0.09338},
        "directory": "eurosat_64/vqvae",
        "card": "docs/presets/eurosat_64.md",
    },
    "vqvae2_imagenette_128": {
        "description": "Trained on Imagenette at 128x128, its decoder sharpened by LPIPS and a "
        "discriminator: maps of 16x16 and 32x32 codes.",
        "image_shape": (128, 128, 3),
        "parameters": 1_783_367,
        "metrics": {"psnr": 26.08, "ssim": 0.8159, "lpips": 0.07405},
        "directory": "imagenette_128/vqvae",
        "card": "docs/presets/vqvae2_imagenette_128.md",
    },
    "vqvae2_imagenet_256": {
        "description": "The paper's model for ImageNet at 256x256: maps of 32x32 and 64x64 codes. "
        "Architecture only; no weights were ever published.",
        "image_shape": (256, 256, 3),
        "parameters": 1_667_335,
        "config": {"image_shape": (256, 256, 3), "num_levels": 2},
    },
    "vqvae2_ffhq_1024": {
        "description": "The paper's model for FFHQ at 1024x1024: maps of 32x32, 64x64 and 128x128 "
        "codes. Architecture only; no weights were ever published.",
        "image_shape": (1024, 1024, 3),
        "parameters": 3_213_641,
        "config": {"image_shape": (1024, 1024, 3), "num_levels": 3},
    },
}

# Of bundled models whose decoder is another since: what version 0.1 hashed, decoder included.
FINGERPRINTS_OF_0_1 = {
    "9f783037e37dae23": "d88499b8ec8053bb",  # vqvae2_clothing_64
    "f21d2211c38008b2": "610698eefa1faf6e",  # vqvae2_imagenette_128
}
