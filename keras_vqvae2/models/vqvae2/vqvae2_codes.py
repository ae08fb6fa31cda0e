import functools
import hashlib
import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Codes, Tensor
from keras_vqvae2.image_batches import to_unit_floats
from keras_vqvae2.models.vqvae2.code_checks import complete_codes
from keras_vqvae2.models.vqvae2.image_checks import check_images
from keras_vqvae2.models.vqvae2.vqvae2_layers import join, to_pixels


class VQVAE2Codes:
    """What `VQVAE2` does with codes: images to codes, codes to images, and what codes mean."""

    @functools.cached_property
    def encoder(self) -> keras.Model:
        """Model from images in `[0, 1]` to the dict of code maps."""
        return keras.Model(self.input, dict(self._graph_tensors["codes"]), name="encoder")

    @functools.cached_property
    def decoder(self) -> keras.Model:
        """Model from the dict of code maps (-1: unknown) to images, not clipped."""
        maps = {
            level: keras.Input((None, None), dtype="int32", name=level) for level in self.levels
        }
        known = None
        for level, codes in maps.items():
            quantized = self.get_layer(f"quantizer_{level}")(codes, reverse=True)
            upsampler = None if known is None else self.get_layer(f"upsampler_{level}")
            known = join(known, quantized, upsampler)
        pixels = to_pixels(self.get_layer("pixel_decoder")(known))
        return keras.Model(maps, pixels, name="decoder")

    def encode(self, images: Tensor, batch_size: int = 32, verbose: int = 0) -> Codes:
        """Encodes images.

        Args:
            images: Array of shape `(N, H, W, C)`, floats in `[0, 1]` or uint8.
            batch_size: Positive integer, images at a time.
            verbose: 1 shows a progress bar.

        Returns:
            Dict from level to int32 codes, coarse to fine: for the paper's model at 256x256
            `{"top": (N, 32, 32), "bottom": (N, 64, 64)}`.

        Raises:
            ValueError: If sizes, channels, dtype or range of the images do not fit.
        """
        images = ops.convert_to_numpy(images)
        check_images(images, self.image_shape[-1], self.downsampling)
        backend.sync_training_state(self)
        codes = predict_in_parts(self.encoder, to_unit_floats(images), batch_size, verbose)
        return {level: codes[level] for level in self.levels}

    def decode(
        self, codes: Mapping[str, Tensor], batch_size: int = 32, verbose: int = 0
    ) -> np.ndarray:
        """Decodes maps of codes.

        Args:
            codes: Dict from level to integer codes, as `encode` returns it. Levels that are left
                out are filled with their mean code: `decode({"top": …})` shows what the top
                level alone holds.
            batch_size: Positive integer, images at a time.
            verbose: 1 shows a progress bar.

        Returns:
            float32 images in `[0, 1]`, shape `(N, H, W, C)`.

        Raises:
            ValueError: If a level is not one of the model's, sizes do not fit each other, or a code
                is not in `[0, num_embeddings)`.
        """
        unit = self.code_shapes((self.downsampling, self.downsampling))
        codes = complete_codes(codes, unit, self.num_embeddings)
        backend.sync_training_state(self)
        images = predict_in_parts(self.decoder, codes, batch_size, verbose)
        return np.clip(images, 0.0, 1.0)

    def code_shapes(self, image_size: Sequence[int] | None = None) -> dict[str, tuple[int, int]]:
        """Sizes of the code maps.

        Args:
            image_size: `(height, width)` of the images; those of `image_shape` by default.

        Returns:
            Dict from level to `(rows, columns)`, coarse to fine.
        """
        height, width = image_size or self.image_shape[:2]
        shapes = {}
        for i, level in enumerate(self.levels):
            factor = math.prod(self.downsample_factors[i:])
            shapes[level] = (height // factor, width // factor)
        return shapes

    def fingerprint(self) -> str:
        """A name for what this model's codes mean: equal weights, equal fingerprint.

        Returns:
            String of 16 hexadecimal digits, of a hash of all weights.
        """
        backend.sync_training_state(self)
        digest = hashlib.sha256()
        for variable in self.weights:
            digest.update(np.ascontiguousarray(ops.convert_to_numpy(variable)).tobytes())
        return digest.hexdigest()[:16]


def predict_in_parts(model, inputs, batch_size, verbose):
    """`model.predict`, of any number of examples on any number of devices that share a batch."""
    multiple = backend.batch_multiple()
    count = len(keras.tree.flatten(inputs)[0])
    padding = -count % multiple
    if padding:
        repeated = np.minimum(np.arange(count + padding), count - 1)
        inputs = keras.tree.map_structure(lambda x: x[repeated], inputs)
    batch_size = -(-batch_size // multiple) * multiple
    outputs = model.predict(inputs, batch_size=batch_size, verbose=verbose)
    return keras.tree.map_structure(lambda x: x[:count], outputs)
