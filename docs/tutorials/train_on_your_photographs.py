# %% [markdown]
# # Train on your own photographs
#
# From a folder of photographs to a generator of new ones: first a `VQVAE2`, which turns images into
# codes, then a prior for each of its levels, which learns which codes go together. This page does
# it in Python, in a few minutes on a laptop and without an accelerator, so the models are small and
# the images are, too. The scripts of [Training stage 1](../training.md) and [Priors and
# sampling](../priors.md) do the same on disk, with `--resume`.

# %%
import os
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import keras_vqvae2
from keras_vqvae2.codes import codes_from_tfds, encode_dataset
from keras_vqvae2.data import images_from_folder

QUICK = "KERAS_VQVAE2_QUICK" in os.environ  # set by the tests: as little as shows that it runs
PHOTOGRAPHS, HELD_OUT = Path("photographs"), Path("held_out")  # yours: a folder a class in each
STEPS, EPOCHS, PRIOR_STEPS = (4, 2, 2) if QUICK else (400, 8, 200)
BATCH = 4 if QUICK else 32

keras.utils.set_random_seed(0)

# %% [markdown]
# ## The photographs
#
# Change the line with `PHOTOGRAPHS` to two folders of your own: one to learn from and a smaller one
# to watch. Any size and format will do; the names of the folders in them are the classes:
#
#     photographs/dress/0001.jpg
#     photographs/pants/0002.jpg
#
# No photographs at hand? Then the bundled generator `clothing_64` invents some. They are worse than
# photographs, and a model that learns from them cannot be better than they are; for seeing how it
# is done they serve.

# %%
if not PHOTOGRAPHS.exists():
    inventor = keras_vqvae2.HierarchicalImageGenerator.from_preset("clothing_64")
    for folder, count, seed in ((PHOTOGRAPHS, 320, 0), (HELD_OUT, 64, 1)):
        count = BATCH if QUICK else count
        labels = ["dress", "longsleeve", "pants", "t-shirt"] * (count // 4)
        images = inventor.generate(count, labels, seed=seed, batch_size=BATCH)
        for number, (label, image) in enumerate(zip(labels, images)):
            path = folder / label / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(255 * image).astype("uint8")).save(path)

classes = keras_vqvae2.data.class_names(PHOTOGRAPHS)
images = images_from_folder(
    PHOTOGRAPHS,
    image_size=64,
    batch_size=BATCH,
    resize=68,  # a little larger than 64, so that random crops differ
    crop="random",
    flip=True,
    shuffle=True,
    repeat=True,
)
held_out = images_from_folder(HELD_OUT, 64, BATCH)
shown = keras.ops.convert_to_numpy(next(iter(held_out)))[:8]
variance = float(np.var(np.asarray(next(iter(images)))))
print(f"classes {classes}, variance of the pixels {variance:.3f}")

# %% [markdown]
# ## Stage 1: images to codes
#
# Three arguments are worth a thought with your own data. `data_variance` puts the squared error on
# a scale on which the commitment does not drown it; `quantizer_dropout` makes the top map carry the
# picture, which is what its prior needs; `num_embeddings` is small here (the paper has 512), as few
# images cannot fill many codes.

# %%
vqvae = keras_vqvae2.VQVAE2(
    image_shape=(64, 64, 3),
    num_embeddings=128,
    hidden_units=64,
    residual_units=32,
    data_variance=variance,
    quantizer_dropout=0.1,
)


def optimizer(steps, peak):
    """Adam with a short warm-up and a cosine decay, as in the recipes."""
    warm_up = max(1, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - warm_up, alpha=0.01, warmup_target=peak, warmup_steps=warm_up
    )
    return keras.optimizers.Adam(schedule, global_clipnorm=1.0)


def report(*names):
    """Prints these logs after each epoch; `verbose=1` would show Keras' progress bar."""
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: print(
            f"epoch {epoch + 1}:", ", ".join(f"{name} {logs[name]:.2f}" for name in names)
        )
    )


vqvae.compile(optimizer=optimizer(STEPS, 1e-3))
history = vqvae.fit(
    images,
    epochs=EPOCHS,
    steps_per_epoch=STEPS // EPOCHS,
    validation_data=held_out,
    callbacks=[
        keras_vqvae2.callbacks.ReconstructionGrid(shown, "pictures"),
        keras_vqvae2.callbacks.TrainingCheckpoint("checkpoints"),
        report("psnr", "val_psnr", "val_perplexity_top", "val_perplexity_bottom"),
    ],
    verbose=0,
).history

# %% [markdown]
# The checkpoint lets a run that was killed go on: `TrainingCheckpoint.restore` returns model, epoch
# and step ([an example](scale_and_mixed_precision.py#go-on-after-a-kill)). The other callback
# writes a picture after each epoch; this is the last one:

# %%
picture = plt.imread(f"pictures/epoch-{EPOCHS}.png")
plt.figure(figsize=(picture.shape[1] / 110, picture.shape[0] / 110))
plt.imshow(picture)
plt.axis("off")
plt.show()

# %%
_, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
epochs = np.arange(1, EPOCHS + 1)
axes[0].plot(epochs, history["psnr"], label="training")
axes[0].plot(epochs, history["val_psnr"], label="held out")
axes[0].set(xlabel="epoch", ylabel="PSNR, dB")
for level in vqvae.levels:
    axes[1].plot(epochs, history[f"val_perplexity_{level}"], label=level)
axes[1].set(xlabel="epoch", ylabel="perplexity, held out")
for axis in axes:
    axis.legend()
    axis.grid(alpha=0.3)
plt.show()

# %% [markdown]
# *Left: PSNR, where the training curve lies lower because a tenth of the images lose their bottom
# codes. Right: how many equally frequent codes each map's would be worth, of 128.*
#
# A PSNR above 20 dB and perplexities that rise are what to look for after so few steps. The curves
# are not flat yet: the bundled preset is twice as wide, trained for 3,000 steps, and reaches about
# 28 dB. If PSNR stays below 20 or a perplexity at a handful, see [what to
# watch](../training.md#what-to-watch).
#
# ## The data set of codes
#
# The priors see codes only. Encoding once and keeping the codes is what makes stage 2 cheap;
# `flips=True` encodes mirror images too. The data set remembers which model made it.

# %%
for split, folder in (("train", PHOTOGRAPHS), ("validation", HELD_OUT)):
    source = images_from_folder(folder, 64, BATCH, labels=True)
    encode_dataset(vqvae, source, "codes", split, class_names=classes, flips=True)

batch = next(iter(codes_from_tfds("codes", BATCH)))
print({name: tuple(values.shape) for name, values in batch.items()})

# %% [markdown]
# ## Stage 2: a prior for each level
#
# The top prior learns the distribution of top maps given the class; the bottom prior that of bottom
# maps given the class and the top map. Their loss is in nats a code. Codes drawn blindly cost
# `log(128)`, about 4.85 nats; each nat below it is something learned.

# %%
priors, curves = {}, {}
for level, factors in (("top", {}), ("bottom", {"top": 2})):
    prior = keras_vqvae2.PixelSnailPrior(
        vqvae.code_shapes()[level],
        num_embeddings=vqvae.num_embeddings[level],
        level=level,
        condition_factors=factors,
        num_classes=len(classes),
        hidden_units=64,
        residual_units=64,
        num_blocks=2,
        block_layers=2,
        kernel_size=3,
        attention_heads=4 if level == "top" else 0,
        condition_blocks=1,
        condition_kernel_size=3,
        output_blocks=1,
        codes_fingerprint=vqvae.fingerprint(),
    )
    prior.compile(optimizer=optimizer(PRIOR_STEPS, 2e-3))
    print(f"{level}: {prior.count_params():,} parameters")
    curves[level] = prior.fit(
        codes_from_tfds("codes", BATCH, vqvae=vqvae, shuffle=True, repeat=True),
        epochs=2 if QUICK else 5,
        steps_per_epoch=PRIOR_STEPS // (2 if QUICK else 5),
        validation_data=codes_from_tfds("codes", BATCH, split="validation"),
        callbacks=[report("loss", "val_loss")],
        verbose=0,
    ).history
    priors[level] = prior

# %% [markdown]
# What a prior knows is worth comparing with a table that knows only how often each code stands at
# each position:

# %%
generator = keras_vqvae2.HierarchicalImageGenerator(
    vqvae,
    priors,
    label_names=classes,
    settings={level: {"temperature": 0.9, "top_p": 0.9} for level in vqvae.levels},
)
train = next(iter(codes_from_tfds("codes", 10_000)))
measured = keras_vqvae2.evaluation.evaluate_likelihood(
    generator,
    codes_from_tfds("codes", BATCH, split="validation"),
    train_codes={level: np.asarray(train[level]) for level in vqvae.levels},
)
_, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
for level, numbers in measured["levels"].items():
    line = axis.plot(curves[level]["loss"], label=f"{level}, training")[0]
    axis.plot(curves[level]["val_loss"], "--", color=line.get_color(), label=f"{level}, held out")
    print(
        f"{level:>6}: {numbers['nats_per_code']:.2f} nats a code held out, position only "
        f"{numbers['position_only']:.2f}, blind {numbers['uniform']:.2f}"
    )
axis.set(xlabel="epoch", ylabel="nats a code")
axis.legend()
axis.grid(alpha=0.3)
plt.show()

# %% [markdown]
# *Nats a code of both priors. The level that is surprised less is the one whose codes are more
# regular; only numbers of the same codebook can be compared.*
#
# Below "position only" a prior has learned how codes depend on each other. If the held-out curve
# rises while the other falls, it learns the photographs by heart: more photographs, more `dropout`,
# or [`BestPreset`](../api/callbacks.md), which keeps the best epoch.
#
# ## New images

# %%
labels = [name for name in classes for _ in range(1 if QUICK else 4)]
invented = generator.generate(len(labels), labels, seed=0, batch_size=len(labels))
columns = len(labels) // len(classes)
rows = invented.reshape(len(classes), columns, 64, 64, 3).swapaxes(1, 2)  # (class, 64, column, ...)
_, axes = plt.subplots(len(classes), figsize=(columns, 1.2 * len(classes)), layout="constrained")
for axis, name, row in zip(axes, classes, rows):
    axis.imshow(row.reshape(64, columns * 64, 3))
    axis.set_title(name, loc="left", fontsize=9)
    axis.axis("off")
plt.show()

# %% [markdown]
# *A row a class, none left out. Honestly: after a few minutes expect colours and light that fit,
# some outlines, and few things that can be named.*
#
# The bundled `clothing_64` has the same parts in larger: 10.4 M parameters, 3,068 photographs, and
# 75 minutes on the same two cores. Its recipes are in `examples/recipes/`; start from them for real
# work, and mind that samples are limited by the priors long before the reconstructions are.
#
# ## Keep it

# %%
generator.save_to_preset("my_generator")
loaded = keras_vqvae2.HierarchicalImageGenerator.from_preset("my_generator")
again = loaded.generate(len(labels), labels, seed=0, batch_size=len(labels))
print(f"largest difference after loading: {np.abs(again - invented).max():.1e}")

# %% [markdown]
# One directory with all parts, which `from_preset` takes by its path. Next: [sample, complete,
# reject](sample_complete_reject.py), and [evaluate a generator](evaluate_a_generator.py).
