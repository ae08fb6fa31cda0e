"""Fits the classifier by which app.py, or `generate_best`, chooses among a generator's candidates.

    pip install -e '.[features]'
    python examples/fit_classifier.py --preset=clothing_64 --train=clothing/train \\
        --validation=clothing/test --classifier=examples/classifiers/clothing_64.npz

Softmax regression on EfficientNet-Lite0's features of photographs of the preset's size. --train and
--validation are folders with a folder a class; --classifier receives the weights (float16) and the
names of the labels. app.py finds the classifier of a preset that has a name in
examples/classifiers/, that of a directory as classifier.npz in it. In Python:

    extractor = keras_vqvae2.features.efficientnet_lite0()
    classifier = keras_vqvae2.evaluation.LabelClassifier.load(path, extractor)
    generator.generate_best(8, classifier, acceptance_rate=0.1)
"""

from pathlib import Path

import command_line
import image_sources
import keras
from absl import flags

import keras_vqvae2
from keras_vqvae2.evaluation import LabelClassifier

FLAGS = flags.FLAGS
command_line.define("preset", "cache", "register")
flags.DEFINE_string("train", None, "Folder of training images, a folder a class.")
flags.DEFINE_string("validation", None, "Folder of held-out images, a folder a class.")
flags.DEFINE_string("classifier", None, "The .npz file to write.")
flags.mark_flags_as_required(["preset", "train", "validation", "classifier"])


def fit_classifier():
    command_line.folder_to_write("classifier", Path(FLAGS.classifier).parent)
    extractor = keras_vqvae2.features.efficientnet_lite0()
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
    size, names = generator.vqvae.image_shape[:2], generator.class_names
    command_line.announce(
        f"softmax regression on features of {extractor.name}",
        [],
        image_sources.check_classes(names, "train", "validation"),
        f"{len(names)} labels of {FLAGS.preset}, photographs of {size[0]}x{size[1]}",
        FLAGS.classifier,
    )
    keras.utils.set_random_seed(0)

    def measured(folder):
        images, labels = image_sources.read_images(folder, size)
        return image_sources.read_features(extractor, images), labels

    train, validation = measured(FLAGS.train), measured(FLAGS.validation)
    LabelClassifier.fit(extractor, *train, names).save(FLAGS.classifier)
    classifier = LabelClassifier.load(FLAGS.classifier, extractor)  # as it will be used, in float16
    for name, (features, labels) in (("training", train), ("validation", validation)):
        right = classifier.accuracy(features, labels)
        print(f"{right:.1%} of {len(labels)} {name} images right")
    print(f"Wrote {FLAGS.classifier}.")


if __name__ == "__main__":
    command_line.run("fit_classifier", fit_classifier)
