from keras_vqvae2.models.masked_transformer.masked_transformer_presets import (
    MASKED_TRANSFORMER_PRESETS,
)
from keras_vqvae2.models.masked_transformer.masked_transformer_prior import MaskedTransformerPrior
from keras_vqvae2.models.preset_registry import register_presets

register_presets(MaskedTransformerPrior, MASKED_TRANSFORMER_PRESETS)

__all__ = ["MaskedTransformerPrior"]
