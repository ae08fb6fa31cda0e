# %% [markdown]
# # Explore the levels
#
# A `VQVAE2` writes an image down as a few small maps of integers. What does each map hold? This
# page takes a bundled model apart: it looks at the maps, decodes them one by one, exchanges them
# between photographs, and counts the codes in use. Nothing is trained; it takes seconds.

# %%
import math
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_vqvae2
from keras_vqvae2.plots import code_colours

QUICK = "KERAS_VQVAE2_QUICK" in os.environ  # set by the tests: as little as shows that it runs
COUNT = 2 if QUICK else 8

vqvae = keras_vqvae2.VQVAE2.from_preset("vqvae2_clothing_64")
photographs = keras_vqvae2.data.sample_photographs()[:COUNT]  # uint8; yours: multiples of 8 pixels


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


print(f"{vqvae.count_params():,} parameters, levels {vqvae.levels}, on {keras.backend.backend()}")

# %% [markdown]
# ## From pixels to codes and back
#
# The model was trained on 64x64 images. It is fully convolutional, so photographs of 128x128 make
# larger maps and nothing else changes.

# %%
codes = vqvae.encode(photographs)
pixels = photographs / 255.0
bits = 0
for level, values in codes.items():
    bits += math.prod(values.shape[1:]) * math.log2(vqvae.num_embeddings[level])
    print(f"{level:>6}: {values.shape} {values.dtype}, codes {values.min()} to {values.max()}")
print(f"{bits / 8:,.0f} bytes an image; its pixels are {photographs[0].nbytes:,} bytes")
print(f"{bits / math.prod(photographs.shape[1:3]):.2f} bits a pixel")

# %% [markdown]
# The numbers of codes mean nothing by themselves: code 17 is no neighbour of code 18. Their vectors
# do, so the next cell colours each code by where its vector lies: the three directions in which a
# codebook spreads most become red, green and blue, and codes that are alike look alike.

# %%
colours = {level: code_colours(layer.codebook) for level, layer in vqvae.quantizers.items()}
maps = {
    f"{level} codes, {values.shape[1]}x{values.shape[2]}": colours[level][values]
    for level, values in codes.items()
}
show({"photographs": pixels})
for name, pictures in maps.items():
    show({name: pictures})

# %% [markdown]
# *Photographs and their maps of codes. In both maps the clothes stand out from what they lie on:
# codes are local, and say what is seen at a place.*
#
# Decoding both maps gives the reconstruction. A level that is left out is filled with its mean
# code, which shows what the others hold.

# %%
rows = {
    "photographs": pixels,
    "both levels": vqvae.decode(codes),
    "top alone": vqvae.decode({"top": codes["top"]}),
    "bottom alone": vqvae.decode({"bottom": codes["bottom"]}),
}
show(rows)
for name, images in list(rows.items())[1:]:
    psnr = keras_vqvae2.metrics.PeakSignalNoiseRatio()
    psnr.update_state(pixels, images)
    print(f"{name:>12}: {float(psnr.result()):.1f} dB")

# %% [markdown]
# *The top alone is a small, soft version of the photograph; the bottom alone has edges and texture
# without the right colours.*
#
# About 27 dB is what this model reaches with both levels here, and above 20 dB with the top alone.
# That is no law. It was trained with `quantizer_dropout=0.1`, which takes the bottom codes away
# from some images, so that the top has to carry the picture. `vqvae2_imagenette_128` was trained
# without:

# %%
other = keras_vqvae2.VQVAE2.from_preset("vqvae2_imagenette_128")
other_codes = other.encode(photographs)
other_rows = {
    "both levels, without dropout": other.decode(other_codes),
    "top alone, without dropout": other.decode({"top": other_codes["top"]}),
}
show(other_rows)
for name, images in other_rows.items():
    psnr = keras_vqvae2.metrics.PeakSignalNoiseRatio()
    psnr.update_state(pixels, images)
    print(f"{name:>28}: {float(psnr.result()):.1f} dB")

# %% [markdown]
# *The same photographs through the model that was trained without quantizer dropout: the whole is
# as good, its top map alone is nearly nothing.*
#
# A prior would have to invent nearly everything at the finest level there. If your own model looks
# like this, see [when a level carries nothing](../training.md#when-a-level-carries-nothing).
#
# ## Exchange the levels
#
# Codes are plain arrays, so maps of different photographs can be put together: here each photograph
# keeps its bottom map and gets the top map of its neighbour.

# %%
swapped = {"top": np.roll(codes["top"], 1, axis=0), "bottom": codes["bottom"]}
show(
    {
        "whose bottom map it is": pixels,
        "whose top map it is": np.roll(pixels, 1, axis=0),
        "decoded together": vqvae.decode(swapped),
    }
)

# %% [markdown]
# *Shapes and shades of the top's photograph, with lines of the bottom's laid over it. The maps do
# not agree, which never happened in training: such images are what a bottom prior that ignores its
# top would draw.*
#
# How far does one code reach? Change a single one and look at which pixels change.

# %%
figure, axes = plt.subplots(1, len(codes), figsize=(7, 3.2), layout="constrained")
for axis, (level, values) in zip(axes, codes.items()):
    changed = {name: value[:1].copy() for name, value in codes.items()}
    middle = values.shape[1] // 2
    other_code = (values[0, middle, middle] + 1) % vqvae.num_embeddings[level]
    changed[level][0, middle, middle] = other_code
    difference = np.abs(vqvae.decode(changed) - rows["both levels"][:1])[0].mean(axis=-1)
    area = np.ptp(np.argwhere(difference > 1e-4), axis=0) + 1
    axis.imshow(difference, cmap="magma")
    axis.set_title(f"one {level} code: {area[0]}x{area[1]} pixels", fontsize=9)
    axis.axis("off")
plt.show()

# %% [markdown]
# *Mean change of the pixels, bright where it is large. A code stands for a cell (8x8 pixels for the
# top, 4x4 for the bottom), and the decoder blends neighbouring cells over a wider patch.*
#
# ## The codebooks
#
# Codes that are never chosen are wasted. Two numbers tell: the share of codes in use, and the
# perplexity, how many equally frequent codes would carry as much.

# %%
for level, values in codes.items():
    usage = keras_vqvae2.metrics.CodebookUsage(vqvae.num_embeddings[level])
    perplexity = keras_vqvae2.metrics.CodebookPerplexity(vqvae.num_embeddings[level])
    usage.update_state(values)
    perplexity.update_state(values)
    print(
        f"{level:>6}: {values.size:,} codes, {float(usage.result()):.0%} of the codebook in use, "
        f"perplexity {float(perplexity.result()):.0f} of {vqvae.num_embeddings[level]}"
    )

# %% [markdown]
# Eight photographs are few: more images use more of the codes. Over the 372 test photographs of
# [the card](../presets/clothing_64.md#measured) nearly all codes of both levels are used. If a
# third or less of your codebook is in use on validation images, see [the codebook
# collapses](../troubleshooting.md#the-codebook-collapses).
#
# What does a code look like? A small map of one code alone, decoded:

# %%
counts = np.bincount(codes["top"].ravel(), minlength=vqvae.num_embeddings["top"])
frequent = np.argsort(-counts)[:24]
patches = vqvae.decode({"top": np.broadcast_to(frequent[:, None, None], (24, 4, 4))})
show({"the 24 most frequent top codes": patches[:, 8:24, 8:24]})

# %% [markdown]
# *Each patch is one top code, repeated, without bottom codes. They are shades: the palette from
# which the top map paints the picture.*

# %%
figure, axes = plt.subplots(1, len(codes), figsize=(9, 4), layout="constrained")
for axis, (level, values) in zip(axes, codes.items()):
    codebook = keras.ops.convert_to_numpy(vqvae.quantizers[level].codebook)
    vectors = codebook - codebook.mean(axis=0)
    _, spread, directions = np.linalg.svd(vectors, full_matrices=False)
    x, y = (vectors @ directions[:2].T).T
    counts = np.bincount(values.ravel(), minlength=vqvae.num_embeddings[level])
    axis.scatter(x, y, s=4 + 2 * counts, c=colours[level], alpha=0.8)
    explained = (spread[:2] ** 2).sum() / (spread**2).sum()
    axis.set_title(f"{level}: {explained:.0%} of the spread in this plane", fontsize=9)
    axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# *The vectors of both codebooks on the two axes of their largest spread; a larger dot is chosen
# more often in these photographs, colours are those of the maps above.*
#
# Next: [train on your own photographs](train_on_your_photographs.py), or let the bundled priors
# draw the maps: [sample, complete, reject](sample_complete_reject.py).
