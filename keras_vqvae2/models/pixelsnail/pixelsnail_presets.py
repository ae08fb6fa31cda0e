"""The presets of `PixelSnailPrior`: the paper's five priors, and those that were trained here.

Numbers of appendix A.2, table 5. What the paper leaves open is read as follows: labels and coarser
levels enter every gate; the 1x1 residual blocks of the output stack are as wide as the others; a
level sees all coarser ones. The numbers of FFHQ, and some of the bottom level of ImageNet, are from
memory. Metrics are those of the card: nats a code of held-out and of training images, from
examples/evaluate.py.
"""

COMMON = {"num_embeddings": 512, "hidden_units": 512, "kernel_size": 5, "num_blocks": 4}
ARCHITECTURE = "Architecture only; no weights were ever published."

PIXELSNAIL_PRESETS = {
    "pixelsnail_cartoonset_128_top": {
        "description": "Top level of the generator of drawn faces, given one of ten hair colours.",
        "image_shape": (128, 128, 3),
        "parameters": 2_898_416,
        "metrics": {"nats_per_code": 1.232, "nats_per_code_train": 0.9711},
        "directory": "cartoonset_128/prior_top",
        "card": "docs/presets/cartoonset_128.md",
    },
    "pixelsnail_cartoonset_128_bottom": {
        "description": "Bottom level of the generator of drawn faces, given hair colour and top "
        "level.",
        "image_shape": (128, 128, 3),
        "parameters": 4_349_232,
        "metrics": {"nats_per_code": 1.374, "nats_per_code_train": 0.9102},
        "directory": "cartoonset_128/prior_bottom",
        "card": "docs/presets/cartoonset_128.md",
    },
    "pixelsnail_clothing_64_top": {
        "description": "Top level of the generator of clothes, given one of ten classes.",
        "image_shape": (64, 64, 3),
        "parameters": 4_464_152,
        "metrics": {"nats_per_code": 3.807, "nats_per_code_train": 3.6},
        "directory": "clothing_64/prior_top",
        "card": "docs/presets/clothing_64.md",
    },
    "pixelsnail_clothing_64_bottom": {
        "description": "Bottom level of the generator of clothes, given class and top level.",
        "image_shape": (64, 64, 3),
        "parameters": 4_179_680,
        "metrics": {"nats_per_code": 3.845, "nats_per_code_train": 3.976},
        "directory": "clothing_64/prior_bottom",
        "card": "docs/presets/clothing_64.md",
    },
    "pixelsnail_eurosat_64_top": {
        "description": "Top level of the generator of satellite photographs, given one of ten "
        "kinds of land cover.",
        "image_shape": (64, 64, 3),
        "parameters": 2_898_416,
        "metrics": {"nats_per_code": 3.821, "nats_per_code_train": 3.621},
        "directory": "eurosat_64/prior_top",
        "card": "docs/presets/eurosat_64.md",
    },
    "pixelsnail_eurosat_64_bottom": {
        "description": "Bottom level of the generator of satellite photographs, given land cover "
        "and top level.",
        "image_shape": (64, 64, 3),
        "parameters": 4_349_232,
        "metrics": {"nats_per_code": 4.412, "nats_per_code_train": 4.211},
        "directory": "eurosat_64/prior_bottom",
        "card": "docs/presets/eurosat_64.md",
    },
    "pixelsnail_imagenette_128_top": {
        "description": "Top level of the generator of Imagenette, given one of ten classes.",
        "image_shape": (128, 128, 3),
        "parameters": 4_461_848,
        "metrics": {"nats_per_code": 3.76, "nats_per_code_train": 3.713},
        "directory": "imagenette_128/prior_top",
        "card": "docs/presets/imagenette_128.md",
    },
    "pixelsnail_imagenette_128_bottom": {
        "description": "Bottom level of the generator of Imagenette, given class and top level.",
        "image_shape": (128, 128, 3),
        "parameters": 4_227_424,
        "metrics": {"nats_per_code": 3.586, "nats_per_code_train": 3.559},
        "directory": "imagenette_128/prior_bottom",
        "card": "docs/presets/imagenette_128.md",
    },
    "pixelsnail_imagenet_256_top": {
        "description": "The paper's prior of the top level for ImageNet at 256x256. "
        + ARCHITECTURE,
        "parameters": 1_045_250_336,
        "config": {
            **COMMON,
            "code_shape": (32, 32),
            "level": "top",
            "num_classes": 1000,
            "residual_units": 2048,
            "block_layers": 5,
            "attention_heads": 8,
            "output_blocks": 20,
            "dropout": 0.1,
            "image_shape": (256, 256, 3),
        },
    },
    "pixelsnail_imagenet_256_bottom": {
        "description": "The paper's prior of the bottom level for ImageNet at 256x256. "
        + ARCHITECTURE,
        "parameters": 1_306_127_360,
        "config": {
            **COMMON,
            "code_shape": (64, 64),
            "level": "bottom",
            "condition_factors": {"top": 2},
            "num_classes": 1000,
            "residual_units": 1024,
            "block_layers": 5,
            "attention_heads": 0,
            "condition_blocks": 20,
            "output_blocks": 0,
            "dropout": 0.1,
            "image_shape": (256, 256, 3),
        },
    },
    "pixelsnail_ffhq_1024_top": {
        "description": f"The paper's prior of the top level for FFHQ at 1024x1024. {ARCHITECTURE}",
        "parameters": 961_794_336,
        "config": {
            **COMMON,
            "code_shape": (32, 32),
            "level": "top",
            "residual_units": 2048,
            "block_layers": 5,
            "attention_heads": 8,
            "output_blocks": 0,
            "dropout": 0.5,
            "image_shape": (1024, 1024, 3),
        },
    },
    "pixelsnail_ffhq_1024_middle": {
        "description": "The paper's prior of the middle level for FFHQ at 1024x1024: 20 layers, "
        f"attention behind the last. {ARCHITECTURE}",
        "parameters": 811_277_832,
        "config": {
            **COMMON,
            "code_shape": (64, 64),
            "level": "middle",
            "condition_factors": {"top": 2},
            "residual_units": 1024,
            "num_blocks": 1,
            "block_layers": 20,
            "attention_heads": 8,
            "condition_blocks": 8,
            "output_blocks": 0,
            "dropout": 0.3,
            "image_shape": (1024, 1024, 3),
        },
    },
    "pixelsnail_ffhq_1024_bottom": {
        "description": "The paper's prior of the bottom level for FFHQ at 1024x1024. "
        + ARCHITECTURE,
        "parameters": 899_216_384,
        "config": {
            **COMMON,
            "code_shape": (128, 128),
            "level": "bottom",
            "condition_factors": {"top": 4, "middle": 2},
            "residual_units": 1024,
            "num_blocks": 2,
            "block_layers": 5,
            "attention_heads": 0,
            "condition_blocks": 8,
            "output_blocks": 0,
            "dropout": 0.25,
            "image_shape": (1024, 1024, 3),
        },
    },
}
