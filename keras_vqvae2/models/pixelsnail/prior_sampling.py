import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tqdm
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.decoding.row_decoder import RowDecoder
from keras_vqvae2.decoding.sampling import Sampling, sample_uniforms
from keras_vqvae2.hints import Tensor
from keras_vqvae2.models.pixelsnail.pixelsnail_steps import PixelSnailSteps
from keras_vqvae2.models.pixelsnail.prior_checks import check_request


class PriorSampling:
    """How `PixelSnailPrior` draws codes (the paper's algorithm 2, one level of it)."""

    def generate(
        self,
        num_samples: int,
        labels: int | Sequence[int] | np.ndarray | None = None,
        condition: Mapping[str, Tensor] | None = None,
        codes: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        first_sample: int = 0,
        batch_size: int = 32,
        verbose: int = 1,
    ) -> np.ndarray:
        """Draws maps of codes, one position after the other from cached features.

        Sample `i` depends on `(seed, i, level)`, its label, condition and given codes, and on
        nothing else: not on the batch size, nor on what is drawn beside it (but for numbers so
        close that rounding decides). `generate(4)` is `generate(2)`, then
        `generate(2, first_sample=2)`.

        An interrupt (Ctrl-C) ends the drawing; what is not drawn by then is -1.

        Args:
            num_samples: Positive integer, N.
            labels: For a prior with classes, an integer or integers of shape `(N,)`.
            condition: For a prior with coarser levels, a dict of their codes, each
                `(N, rows, columns)`.
            codes: None, or int codes of shape `(N, rows, columns)` of which those that are not -1
                are kept: the rest is completed.
            temperature: Positive float, divides the logits.
            top_k: None, or a positive integer: only the `k` most probable codes.
            top_p: None, or a float in `(0, 1]`: only the most probable codes that together reach
                this probability.
            seed: Non-negative integer.
            first_sample: Non-negative integer, number of the first sample.
            batch_size: Positive integer, samples at a time.
            verbose: 1 shows a progress bar over the rows.

        Returns:
            int32 of shape `(N, rows, columns)`.

        Raises:
            ValueError: If labels or coarser levels are missing, or an argument is out of range.
        """
        sampling = Sampling(temperature, top_k, top_p)
        request = check_request(
            self,
            num_samples,
            labels,
            condition,
            codes,
            seed=(0, seed),
            first_sample=(0, first_sample),
            batch_size=(1, batch_size),
        )
        backend.sync_training_state(self)
        multiple = backend.batch_multiple()
        size = -(-min(batch_size, num_samples) // multiple) * multiple
        starts = range(0, num_samples, size)
        rows, columns = self.code_shape
        progress = tqdm.tqdm(
            total=len(starts) * rows, desc=self.level, unit="row", disable=not verbose
        )
        drawn = np.full((num_samples, rows, columns), -1, "int32")
        try:
            for start in starts:
                # The last batch is filled up: one size, one compiled program.
                samples = np.minimum(np.arange(start, start + size), num_samples - 1)
                inputs = {name: value[samples] for name, value in request.items()}
                uniforms = sample_uniforms(
                    seed, first_sample + samples, self.level, (rows, columns)
                )
                for row, (codes, _) in enumerate(self._draw(sampling, inputs, uniforms)):
                    kept = min(size, num_samples - start)
                    drawn[start : start + kept, row] = ops.convert_to_numpy(codes)[:kept]
                    progress.update()
        except KeyboardInterrupt:
            warnings.warn(
                f"Interrupted: of {num_samples} samples {int((drawn >= 0).all((1, 2)).sum())} are "
                "whole; codes that were not drawn are -1.",
                stacklevel=2,
            )
        progress.close()
        return drawn

    def _draw(self, sampling, inputs, uniforms):
        """Yields codes and logits of a batch, a row at a time."""
        condition = None
        if self.conditioner is not None:
            coarser = {name: inputs[name] for name in self.condition_factors}
            condition = self.conditioner.predict_on_batch(coarser)
        return self._row_decoder.rows(
            sampling, inputs[self.level], uniforms, condition, inputs.get("label")
        )

    def quantize(self, mode: str | None = None, config: Any = None, **kwargs: Any) -> None:
        super().quantize(mode, config, **kwargs)
        # Programs that were compiled before hold the variables of before.
        for name in ("_row_decoder", "conditioner"):
            self.__dict__.pop(name, None)

    @functools.cached_property
    def _row_decoder(self):
        return RowDecoder(PixelSnailSteps(self), self.variables)

    @functools.cached_property
    def conditioner(self) -> keras.Model | None:
        """Model from the coarser levels' codes to their features, or None."""
        if self._condition is None:
            return None
        coarser = {name: self.input[name] for name in self.condition_factors}
        return keras.Model(coarser, self._condition, name="conditioner")
