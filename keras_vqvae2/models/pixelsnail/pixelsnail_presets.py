"""The presets of `PixelSnailPrior`: the paper's five priors, and those that were trained here.

Numbers of appendix A.2, table 5. What the paper leaves open is read as follows: labels and coarser
levels enter every gate; the 1x1 residual blocks of the output stack are as wide as the others; a
level sees all coarser ones. The numbers of FFHQ, and some of the bottom level of ImageNet, are from
memory.
"""

COMMON = {"num_embeddings": 512, "hidden_units": 512, "kernel_size": 5, "num_blocks": 4}
ARCHITECTURE = "Architecture only; no weights were ever published."

PIXELSNAIL_PRESETS = {
    "pixelsnail_imagenette_128_top": {
        "description": "Top level of the bundled generator, given one of ten classes.",
        "parameters": 4_461_848,
        "directory": "imagenette_128/prior_top",
        "card": "docs/presets/imagenette_128.md",
    },
    "pixelsnail_imagenette_128_bottom": {
        "description": "Bottom level of the bundled generator, given the class and the top level.",
        "parameters": 4_227_424,
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
