"""`keras-vqvae2-convert`: another project's checkpoint to a preset directory."""

import sys

from absl import app, flags

from keras_vqvae2.converters.checkpoint_files import read_state_dict
from keras_vqvae2.converters.llamagen import convert_llamagen
from keras_vqvae2.converters.maskgit import convert_maskgit
from keras_vqvae2.converters.pixelcnnpp import (
    convert_openai_pixelcnnpp,
    convert_pytorch_pixelcnnpp,
)
from keras_vqvae2.converters.pytorch_gated_pixelcnn import convert_pytorch_gated_pixelcnn
from keras_vqvae2.converters.pytorch_pixelsnail import convert_pytorch_pixelsnail
from keras_vqvae2.converters.pytorch_vqvae2 import convert_pytorch_vqvae2
from keras_vqvae2.converters.theano_pixelrnn import convert_theano_pixelrnn
from keras_vqvae2.converters.vqgan import convert_llamagen_tokenizer, convert_taming_vqgan

FLAGS = flags.FLAGS


def pixelsnail(state):
    return convert_pytorch_pixelsnail(state, FLAGS.attention_heads or 8)


def llamagen(state):
    size = FLAGS.code_size
    return convert_llamagen(state, FLAGS.attention_heads or 12, (size, size))


def maskgit(state):
    return convert_maskgit(state, FLAGS.num_classes or None)


def gated_pixelcnn(state):
    return convert_pytorch_gated_pixelcnn(state, (FLAGS.code_size, FLAGS.code_size))


def pytorch_pixelcnnpp(state):
    return convert_pytorch_pixelcnnpp(state, (FLAGS.image_size, FLAGS.image_size, 3))


def openai_pixelcnnpp(state):
    return convert_openai_pixelcnnpp(state, (FLAGS.image_size, FLAGS.image_size, 3))


def theano_pixelrnn(state):
    return convert_theano_pixelrnn(state, (FLAGS.image_size, FLAGS.image_size, 1))


def taming_vqgan(state):
    return convert_taming_vqgan(state, (FLAGS.image_size, FLAGS.image_size, 3))


def llamagen_tokenizer(state):
    return convert_llamagen_tokenizer(state, (FLAGS.image_size, FLAGS.image_size, 3))


def vqvae2(state):
    size = FLAGS.image_size
    return convert_pytorch_vqvae2(state, (size, size, 3), FLAGS.inplace_relu)


# What a key of the checkpoint starts with, and what then converts it; the last takes the rest.
CONVERTERS = {
    "horizontal.": pixelsnail,
    "tok_embeddings.": llamagen,
    "params/Embed_0/": maskgit,
    "Embed_0/": maskgit,
    "layers.0.vert_stack.": gated_pixelcnn,
    "u_init.": pytorch_pixelcnnpp,
    "conv2d_0/": openai_pixelcnnpp,
    "InputConv.": theano_pixelrnn,
    "encoder.down.": taming_vqgan,
    "encoder.conv_blocks.": llamagen_tokenizer,
    "": vqvae2,
}


def define_flags():
    flags.DEFINE_string("checkpoint", None, "Checkpoint: .pt, .pth, .ckpt or .safetensors.")
    flags.DEFINE_string("preset", None, "Preset directory to write, for from_preset.")
    flags.DEFINE_integer(
        "image_size", 256, "Height and width of the images that a model was trained on."
    )
    flags.DEFINE_integer(
        "attention_heads",
        None,
        "Heads of attention, which the weights do not say: by default 8 of a PixelSNAIL, 12 of a "
        "LlamaGen (its -L has 16, -XL 20, -XXL 24, -3B 32).",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "code_size", 16, "Rows and columns of the codes that a prior draws.", lower_bound=1
    )
    flags.DEFINE_integer("num_classes", 1000, "Labels of a MaskGIT; 0 for none.", lower_bound=0)
    flags.DEFINE_bool(
        "inplace_relu",
        False,
        "Set for checkpoints made before 2021, whose residual blocks had an in-place first ReLU.",
    )
    flags.mark_flags_as_required(["checkpoint", "preset"])


def convert(_):
    try:
        state = read_state_dict(FLAGS.checkpoint)
        model = next(
            make(state)
            for prefix, make in CONVERTERS.items()
            if not prefix or any(str(key).startswith(prefix) for key in state)
        )
        model.save_to_preset(FLAGS.preset)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"keras-vqvae2-convert: {' '.join(str(error).split())}")
    print(f"Wrote {FLAGS.preset}, a {type(model).__name__}: {model.count_params():,} parameters.")


def main():
    define_flags()
    app.run(convert)


if __name__ == "__main__":
    main()
