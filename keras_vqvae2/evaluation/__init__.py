from keras_vqvae2.evaluation.causal_order import causality, mask_of_the_past
from keras_vqvae2.evaluation.classification_accuracy import classification_accuracy_score
from keras_vqvae2.evaluation.classifier_protocol import (
    ClassifierProtocol,
    resnet50_imagenet_protocol,
)
from keras_vqvae2.evaluation.label_classifier import LabelClassifier
from keras_vqvae2.evaluation.likelihood import evaluate_likelihood, position_nats
from keras_vqvae2.evaluation.nearest import nearest_images
from keras_vqvae2.evaluation.reconstructions import evaluate_reconstructions
from keras_vqvae2.evaluation.samples import evaluate_samples, features_at_rates

__all__ = [
    "causality",
    "mask_of_the_past",
    "ClassifierProtocol",
    "LabelClassifier",
    "classification_accuracy_score",
    "evaluate_likelihood",
    "evaluate_reconstructions",
    "evaluate_samples",
    "features_at_rates",
    "nearest_images",
    "position_nats",
    "resnet50_imagenet_protocol",
]
