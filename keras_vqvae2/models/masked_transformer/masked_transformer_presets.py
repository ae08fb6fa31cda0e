"""The preset of `MaskedTransformerPrior`: MaskGIT's size for the codes of 256x256 images.

Sizes of MaskGIT, section 4.1, and of its `configs/maskgit_class_cond_config.py`. Weights are its
authors'; what `converters.convert_maskgit` makes of a checkpoint is such a prior.
"""

MASKED_TRANSFORMER_PRESETS = {
    "masked_transformer_maskgit": {
        "description": "MaskGIT's prior for ImageNet at 256x256. Architecture only; its weights "
        "are MaskGIT's, to be converted.",
        "parameters": 172_457_193,
        "config": {
            "code_shape": (16, 16),
            "num_embeddings": 1024,
            "num_classes": 1000,
            "hidden_units": 768,
            "num_layers": 24,
            "num_heads": 16,
            "feed_forward_units": 3072,
            "post_norm": True,
            "dropout": 0.1,
            "image_shape": (256, 256, 3),
        },
    },
}
