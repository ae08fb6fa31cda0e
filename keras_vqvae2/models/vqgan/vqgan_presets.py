"""The presets of `VQGAN`: the published models' sizes, without their weights.

Weights are their authors'; what `converters.convert_taming_vqgan` and
`converters.convert_llamagen_tokenizer` make of a checkpoint is such a model.
"""


def _config(num_embeddings, embedding_dim, **options):
    # As Keras writes it, which to ask for it here would import TensorFlow on every backend.
    config = {"num_embeddings": num_embeddings, "embedding_dim": embedding_dim, **options}
    return {
        "quantizer": {
            "module": None,
            "class_name": "VectorQuantizer",
            "config": {**config, "restart_threshold": 0.0},
            "registered_name": "keras_vqvae2>VectorQuantizer",
        }
    }


VQGAN_PRESETS = {
    "vqgan_imagenet_f16_1024": {
        "description": "VQGAN for ImageNet at 256x256: 16x16 of 1,024 codes. Architecture only; "
        "its weights are taming-transformers', to be converted.",
        "image_shape": (256, 256, 3),
        "parameters": 72_404_869,
        "config": _config(1024, 256),
    },
    "vqgan_imagenet_f16_16384": {
        "description": "VQGAN for ImageNet at 256x256: 16x16 of 16,384 codes. Architecture only; "
        "its weights are taming-transformers', to be converted.",
        "image_shape": (256, 256, 3),
        "parameters": 80_284_549,
        "config": _config(16384, 256),
    },
    "vqgan_llamagen_vq_16": {
        "description": "LlamaGen's tokenizer of 256x256 images: 16x16 of 16,384 codes. "
        "Architecture only; its weights are LlamaGen's, to be converted.",
        "image_shape": (256, 256, 3),
        "parameters": 72_030_861,
        "config": _config(16384, 8, similarity="cosine"),
    },
}
