from keras_vqvae2.models.preset_registry import register_presets
from keras_vqvae2.models.transformer.transformer_presets import TRANSFORMER_PRESETS
from keras_vqvae2.models.transformer.transformer_prior import TransformerPrior

register_presets(TransformerPrior, TRANSFORMER_PRESETS)

__all__ = ["TransformerPrior"]
