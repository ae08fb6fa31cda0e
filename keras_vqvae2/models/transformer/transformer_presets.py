"""The presets of `TransformerPrior`: LlamaGen's sizes for the codes of 256x256 images.

Sizes of LlamaGen's `autoregressive/models/gpt.py`. Weights are its authors'; what
`converters.convert_llamagen` makes of a checkpoint is such a prior.
"""

COMMON = {
    "code_shape": (16, 16),
    "num_embeddings": 16384,
    "num_classes": 1000,
    "dropout": 0.1,
    "label_dropout": 0.1,
    "image_shape": (256, 256, 3),
}
ARCHITECTURE = (
    "prior for ImageNet at 256x256. Architecture only; its weights are LlamaGen's, to be converted."
)

TRANSFORMER_PRESETS = {
    "transformer_llamagen_b": {
        "description": f"LlamaGen-B's {ARCHITECTURE}",
        "parameters": 110_888_448,
        "config": {**COMMON, "hidden_units": 768, "num_layers": 12, "num_heads": 12},
    },
    "transformer_llamagen_l": {
        "description": f"LlamaGen-L's {ARCHITECTURE}",
        "parameters": 342_910_976,
        "config": {**COMMON, "hidden_units": 1024, "num_layers": 24, "num_heads": 16},
    },
}
