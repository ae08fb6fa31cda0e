from keras_vqvae2.evaluation.classification_accuracy import classification_accuracy_score
from keras_vqvae2.evaluation.classifier_protocol import (
    ClassifierProtocol,
    resnet50_imagenet_protocol,
)
from keras_vqvae2.evaluation.likelihood import evaluate_likelihood, position_nats
from keras_vqvae2.evaluation.reconstructions import evaluate_reconstructions

__all__ = [
    "ClassifierProtocol",
    "classification_accuracy_score",
    "evaluate_likelihood",
    "evaluate_reconstructions",
    "position_nats",
    "resnet50_imagenet_protocol",
]
