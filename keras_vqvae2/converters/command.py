"""`keras-vqvae2-convert`: a PyTorch checkpoint, of either stage, to a preset directory."""

import sys

from absl import app, flags

from keras_vqvae2.converters.checkpoint_files import read_state_dict
from keras_vqvae2.converters.pytorch_pixelsnail import convert_pytorch_pixelsnail
from keras_vqvae2.converters.pytorch_vqvae2 import convert_pytorch_vqvae2

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("checkpoint", None, "PyTorch checkpoint: .pt, .pth or .safetensors.")
    flags.DEFINE_string("preset", None, "Preset directory to write, for from_preset.")
    flags.DEFINE_integer(
        "image_size", 256, "Height and width of the images that a VQVAE2 was trained on."
    )
    flags.DEFINE_integer("attention_heads", 8, "Heads of a PixelSNAIL's attention.")
    flags.DEFINE_bool(
        "inplace_relu",
        False,
        "Set for checkpoints made before 2021, whose residual blocks had an in-place first ReLU.",
    )
    flags.mark_flags_as_required(["checkpoint", "preset"])


def convert(_):
    try:
        state = read_state_dict(FLAGS.checkpoint)
        if any(key.startswith("horizontal.") for key in state):
            model = convert_pytorch_pixelsnail(state, FLAGS.attention_heads)
        else:
            size = (FLAGS.image_size, FLAGS.image_size, 3)
            model = convert_pytorch_vqvae2(state, size, FLAGS.inplace_relu)
        model.save_to_preset(FLAGS.preset)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"keras-vqvae2-convert: {' '.join(str(error).split())}")
    print(f"Wrote {FLAGS.preset}, a {type(model).__name__}: {model.count_params():,} parameters.")


def main():
    define_flags()
    app.run(convert)


if __name__ == "__main__":
    main()
