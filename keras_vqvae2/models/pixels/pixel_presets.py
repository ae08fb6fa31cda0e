"""The papers' models of pixels, as architectures, and one that was trained here.

No weights of the former were ever published for Keras.

Sizes are the papers'; where features are shared out among three colours they are rounded to a
multiple of three. "Memory" in the docs is four bytes a parameter.
"""

ARCHITECTURE = "Architecture only."

PIXELCNNPP_PRESETS = {
    "pixelcnnpp_cifar10_32": {
        "description": "A small class-conditional PixelCNN++ of 32x32 images: CIFAR-10 as JPEG "
        "files, so that its likelihoods compare with no published ones.",
        "image_shape": (32, 32, 3),
        "parameters": 912_020,
        "metrics": {"bits_per_dim": 2.84},
        "card": "docs/presets/pixelcnnpp_cifar10_32.md",
    },
    "pixelcnnpp_cifar10": {
        "description": f"PixelCNN++ of the paper on CIFAR-10, 2.92 bits/dim there. {ARCHITECTURE}",
        "parameters": 53_659_080,
        "config": {
            "image_shape": (32, 32, 3),
            "hidden_units": 160,
            "num_blocks": 5,
            "num_mixtures": 10,
            "dropout": 0.5,
        },
    },
}

GATED_PIXELCNN_PRESETS = {
    "gated_pixelcnn_imagenet_32": {
        "description": "Gated PixelCNN of the paper on ImageNet at 32x32 with 1,000 classes, 3.83 "
        f"bits/dim there. {ARCHITECTURE}",
        "parameters": 132_257_151,
        "config": {
            "image_shape": (32, 32, 3),
            "num_classes": 1000,
            "hidden_units": 384,
            "num_layers": 20,
            "kernel_size": 5,
            "head_units": 1023,
        },
    },
}

PIXELCNN_PRESETS = {
    "pixelcnn_cifar10": {
        "description": f"The first PixelCNN on CIFAR-10. {ARCHITECTURE}",
        "parameters": 4_624_761,
        "config": {"image_shape": (32, 32, 3), "hidden_units": 129, "num_layers": 15},
    },
}

PIXELRNN_PRESETS = {
    "diagonal_bilstm_cifar10": {
        "description": f"PixelRNN on CIFAR-10, 3.00 bits/dim there. {ARCHITECTURE}",
        "parameters": 8_932_071,
        "config": {
            "image_shape": (32, 32, 3),
            "kind": "diagonal_bilstm",
            "hidden_units": 129,
            "num_layers": 12,
        },
    },
    "row_lstm_imagenet_32": {
        "description": f"PixelRNN on ImageNet at 32x32. {ARCHITECTURE}",
        "parameters": 55_806_975,
        "config": {
            "image_shape": (32, 32, 3),
            "kind": "row_lstm",
            "hidden_units": 384,
            "num_layers": 12,
        },
    },
    "diagonal_bilstm_mnist": {
        "description": "PixelRNN on binary MNIST, 7 layers, 79.20 nats there. " + ARCHITECTURE,
        "parameters": 65_602,
        "config": {
            "image_shape": (28, 28, 1),
            "kind": "diagonal_bilstm",
            "hidden_units": 16,
            "num_layers": 7,
            "head_units": 32,
            "levels": 2,
        },
    },
}
