from keras_vqvae2.features.efficientnet_lite import efficientnet_lite0
from keras_vqvae2.features.feature_extractor import FeatureExtractor
from keras_vqvae2.features.inception import inception_2015
from keras_vqvae2.features.keras_application import keras_application

__all__ = ["FeatureExtractor", "efficientnet_lite0", "inception_2015", "keras_application"]
