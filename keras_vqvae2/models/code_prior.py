import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.decoding.draw_batches import draw_batches
from keras_vqvae2.decoding.position_decoder import PositionDecoder
from keras_vqvae2.decoding.row_decoder import RowDecoder
from keras_vqvae2.decoding.sampling import Sampling, sample_uniforms
from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Config, DTypePolicy, Size, Tensor, TensorTree
from keras_vqvae2.image_batches import filled_batches, to_numpy
from keras_vqvae2.layers.categorical import cross_entropy
from keras_vqvae2.layers.condition_dropout import ConditionDropout
from keras_vqvae2.models.guarded_model import MeanOfSome, track
from keras_vqvae2.models.preset_model import PresetModel
from keras_vqvae2.validation import (
    check_codes,
    check_integer,
    check_positive,
    coarser_shape,
    divides,
    first_batch,
    labels_of_all,
    side_by_side,
    weigh_examples,
)


class CodePrior(PresetModel):
    """The distribution of one level's codes, given labels and coarser levels: what any prior is.

    `HierarchicalImageGenerator`, `evaluation.evaluate_likelihood` and the scripts ask a prior for
    what is here and nothing else. A subclass builds a functional graph from `code_inputs` to
    logits, and says in `_draw_codes` how codes are drawn; `AutoregressivePrior` knows how to draw
    one position after the other. A whole prior, registered outside of the package:

    ```python
    import keras
    import numpy as np
    from keras import ops
    import keras_vqvae2

    @keras.saving.register_keras_serializable(package="my_package")
    class Table(keras.layers.Layer):
        def __init__(self, num_embeddings, **kwargs):
            super().__init__(**kwargs)
            self.num_embeddings = num_embeddings

        def build(self, shape):
            self.logits = self.add_weight(shape=(*shape[1:], self.num_embeddings), name="logits")

        def call(self, codes):
            return self.logits + 0.0 * ops.cast(codes, "float32")[..., None]

    @keras.saving.register_keras_serializable(package="my_package")
    class PositionPrior(keras_vqvae2.CodePrior):
        \"\"\"Knows how frequent each code is at its position, and nothing else.\"\"\"

        def __init__(self, code_shape, num_embeddings=512, level="top", condition_factors=None,
                     num_classes=None, **kwargs):
            inputs = self.code_inputs(code_shape, level, condition_factors, num_classes)
            logits = Table(num_embeddings, name="table")(inputs[level])
            super().__init__(inputs, logits, code_shape, num_embeddings, level, condition_factors,
                             num_classes, **kwargs)

        def _draw_codes(self, sampling, inputs, uniforms):
            logits = ops.reshape(self.get_layer("table").logits, (-1, self.num_embeddings))
            drawn = [sampling.draw(logits, u.ravel(), sampling.numbers()) for u in uniforms]
            yield slice(None), ops.reshape(ops.stack(drawn), (-1, *self.code_shape))

    prior = PositionPrior((4, 4), num_classes=2)
    prior.compile(optimizer="adam")
    prior.fit({"top": np.ones((8, 4, 4), "int32"), "label": np.arange(8) % 2}, verbose=0)
    print(prior.generate(3, labels=1, verbose=0).shape)  # (3, 4, 4)
    ```

    Data are dicts, as `encode_dataset` and `VQVAE2.encode` make them: codes by level, and integers
    `"label"` if the prior has classes. A prior takes what it needs and leaves the rest. Where a
    position has several codes, `(N, rows, columns, depth)`, a prior models maps of
    `code_shape=(rows, columns * depth)`, in which they stand side by side: in raster order it knows
    a position's first codes when it draws the next. `codes.prior_arguments` gives such shapes.

    The loss is the cross-entropy in nats a code. `fit` and `evaluate` report it as `loss`, and as
    `bits_per_code` and, with `image_shape`, as `bits_per_dim`: this level's bits over the image's
    pixels and channels. `fit` adds `gradient_norm` and `skipped_steps`, as `VQVAE2` does: a step
    that is not finite changes nothing.

    Args:
        inputs: What `code_inputs` made.
        logits: Of the level's codes, float32 of shape `(batch, rows, columns, num_embeddings)`.
        code_shape: `(rows, columns)` of the level.
        num_embeddings: Positive integer, codes of the level. Defaults to 512 (paper).
        level: Name of the level that is modelled.
        condition_factors: Dict from each coarser level that is given to how many times smaller
            its maps are, such as `{"top": 2}`, or `{"top": (2, 4)}` in rows and columns: under a
            coarser level with fewer codes a position, say.
        num_classes: None, or the number of labels.
        condition_embeddings: Dict from each coarser level to its number of codes; by default that
            of the level that is modelled.
        image_shape: None, or `(height, width, channels)` of the images, for `bits_per_dim`.
        codes_fingerprint: None, or `VQVAE2.fingerprint()` of the model whose codes these are.
        label_dropout: Float in `[0, 1)`, the share of examples whose label `drop_conditions` hides
            while training. More than 0 lets labels guide, as in `generate`, and be left out.
        condition_dropout: Likewise, for the coarser levels.
        dtype: Dtype policy of the layers. Logits and loss are float32.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If a size is not positive, a share out of range, or the coarser maps do not fit.

    Reference:
        - Razavi, van den Oord, Vinyals 2019, arXiv 1906.00446, section 3.2.
        - Ho, Salimans 2022, "Classifier-Free Diffusion Guidance", arXiv 2207.12598.
    """

    def __init__(
        self,
        inputs: dict[str, keras.KerasTensor],
        logits: keras.KerasTensor,
        code_shape: Sequence[int],
        num_embeddings: int = 512,
        level: str = "top",
        condition_factors: Mapping[str, Size] | None = None,
        num_classes: int | None = None,
        condition_embeddings: Mapping[str, int] | None = None,
        image_shape: Sequence[int] | None = None,
        codes_fingerprint: str | None = None,
        label_dropout: float = 0.0,
        condition_dropout: float = 0.0,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs=inputs, outputs=logits, dtype=dtype, **kwargs)
        self.code_shape = tuple(code_shape)
        self.num_embeddings = num_embeddings
        self.level = level
        self.condition_factors = {
            name: tuple(factor) if isinstance(factor, Sequence) else factor
            for name, factor in (condition_factors or {}).items()
        }
        self.num_classes = num_classes
        self.condition_embeddings = self.embeddings_of_conditions(
            self.condition_factors, condition_embeddings, num_embeddings
        )
        self.image_shape = None if image_shape is None else tuple(image_shape)
        self.codes_fingerprint = codes_fingerprint
        self.label_dropout = label_dropout
        self.condition_dropout = condition_dropout
        self.input_levels = tuple(inputs)
        self._make_trackers()

    @staticmethod
    def code_inputs(
        code_shape: Sequence[int],
        level: str,
        condition_factors: Mapping[str, Size] | None = None,
        num_classes: int | None = None,
    ) -> dict[str, keras.KerasTensor]:
        """The inputs of a prior's graph.

        Args:
            code_shape: As in the constructor.
            level: As in the constructor.
            condition_factors: As in the constructor.
            num_classes: As in the constructor.

        Returns:
            Dict of int32 inputs: the level's codes `(batch, rows, columns)`, those of each coarser
            level, and with classes `"label"`, `(batch,)`.

        Raises:
            ValueError: If a size is not positive, or the coarser maps do not fit.
        """
        code_shape = tuple(code_shape)
        if len(code_shape) != 2 or any(int(s) != s or s < 1 for s in code_shape):
            raise ValueError(
                f"Expected positive integers (rows, columns). Received: code_shape={code_shape}"
            )
        if num_classes is not None:
            check_positive(num_classes=num_classes)
        inputs = {level: keras.Input(code_shape, dtype="int32", name=level)}
        for name, factor in (condition_factors or {}).items():
            if name in (level, "label") or not divides(factor, code_shape):
                raise ValueError(
                    f"Expected levels other than {level!r}, each with an integer that divides "
                    f"code_shape={code_shape}, or one for rows and one for columns. "
                    f"Received: condition_factors={condition_factors}"
                )
            shape = coarser_shape(code_shape, factor)
            inputs[name] = keras.Input(shape, dtype="int32", name=name)
        if num_classes is not None:
            inputs["label"] = keras.Input((), dtype="int32", name="label")
        return inputs

    @staticmethod
    def drop_conditions(
        inputs: Mapping[str, keras.KerasTensor],
        level: str,
        num_classes: int | None = None,
        label_dropout: float = 0.0,
        condition_dropout: float = 0.0,
    ) -> dict[str, keras.KerasTensor]:
        """What the network of a prior that can be guided reads in place of its inputs.

        While training, labels are `num_classes` and the codes of coarser levels -1 in some
        examples: "not told". A prior with `label_dropout` so knows `num_classes + 1` labels.

        Args:
            inputs: What `code_inputs` returned.
            level: As in the constructor.
            num_classes: As in the constructor.
            label_dropout: As in the constructor.
            condition_dropout: As in the constructor.

        Returns:
            Dict of the same names.

        Raises:
            ValueError: If a share is out of range, or there is nothing that it could hide.
        """
        coarser = [name for name in inputs if name not in (level, "label")]
        for name, rate, hides in (
            ("label_dropout", label_dropout, "label" in inputs),
            ("condition_dropout", condition_dropout, coarser),
        ):
            if not 0 <= rate < 1 or (rate and not hides):
                raise ValueError(
                    f"Expected a number in [0, 1), and 0 without labels or coarser levels to hide. "
                    f"Received: {name}={rate} with the inputs {sorted(inputs)}"
                )
        rates = dict.fromkeys(coarser, condition_dropout) | {"label": label_dropout}
        rates = {name: rate for name, rate in rates.items() if rate}
        if not rates:
            return dict(inputs)
        values = {name: -1 if name in coarser else num_classes or 0 for name in rates}
        dropout = ConditionDropout(rates, values, name="condition_dropout")
        return {**inputs, **dropout({name: inputs[name] for name in rates})}

    @staticmethod
    def embeddings_of_conditions(
        condition_factors: Mapping[str, Size] | None,
        condition_embeddings: Mapping[str, int] | None,
        num_embeddings: int,
    ) -> dict[str, int]:
        """Dict from each coarser level to its number of codes, checked; arguments as above."""
        check_positive(num_embeddings=num_embeddings)
        given, coarser = condition_embeddings or {}, condition_factors or {}
        if not set(given) <= set(coarser):
            raise ValueError(
                f"Expected levels of condition_factors={condition_factors}. "
                f"Received: condition_embeddings={condition_embeddings}"
            )
        counts = {name: given.get(name, num_embeddings) for name in coarser}
        check_positive(**{f"condition_embeddings[{name!r}]": n for name, n in counts.items()})
        return counts

    # === Training ===

    def _make_trackers(self):
        super()._make_trackers()
        self.bits_per_code_tracker = MeanOfSome(name="bits_per_code")
        if self.image_shape is not None:
            self.bits_per_dim_tracker = MeanOfSome(name="bits_per_dim")

    def _own(self, batch):
        """Of a dict of levels and labels, what this prior takes."""
        return {name: side_by_side(batch[name]) for name in self.input_levels}

    def _integers(self, batch):
        """As `_own`, int32 tensors: in unsigned integers, as files have them, -1 is a code."""
        return {name: ops.cast(codes, "int32") for name, codes in self._own(batch).items()}

    def call(
        self, inputs: Mapping[str, Tensor], training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        return super().call(self._own(inputs), training=training, mask=mask)

    def step_outputs(self, x: Mapping[str, Tensor], training: bool) -> TensorTree:
        x = self._integers(x)
        nats = cross_entropy(x[self.level], self(x, training=training))
        return {"nats": ops.mean(nats, axis=(1, 2))}  # (B,)

    def compute_loss(
        self,
        x: TensorTree | None = None,
        y: Tensor | None = None,
        y_pred: TensorTree = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """Cross-entropy in nats a code, mean over batch and positions.

        Args:
            x: The batch, not used.
            y: Not used.
            y_pred: What `step_outputs` returned for the batch.
            sample_weight: None, or weights of shape `(batch,)`.
            training: Not used.

        Returns:
            float32 of shape `()`.
        """
        return ops.mean(weigh_examples(y_pred["nats"], sample_weight)) + sum(self.losses)

    def update_step_metrics(
        self, x: TensorTree, outputs: TensorTree, loss: Tensor, weight: Tensor
    ) -> None:
        super().update_step_metrics(x, outputs, loss, weight)
        bits = outputs["nats"] / math.log(2.0)  # neither weighted nor regularized, as `loss` is
        track(self.bits_per_code_tracker, bits, weight)
        if self.image_shape is not None:
            codes_a_dim = math.prod(self.code_shape) / math.prod(self.image_shape)
            track(self.bits_per_dim_tracker, bits * codes_a_dim, weight)

    def _check_data(self, x, with_loss):
        batch, x = first_batch(x)
        if batch is not None:
            self.check_batch(batch)
        return self._own(x) if isinstance(x, dict) else x

    def check_batch(
        self, batch: Mapping[str, Tensor], partial: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Checks a dict of codes and labels.

        Args:
            batch: Dict of arrays; what the prior does not take passes.
            partial: Levels in which -1 may stand for an unknown code.

        Returns:
            The arrays that the prior takes, NumPy's.

        Raises:
            ValueError: If one is missing, or shape, dtype or range of one do not fit.
        """
        if not isinstance(batch, Mapping) or not set(self.input_levels) <= set(batch):
            received = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(
                f"Expected a dict with the keys {self.input_levels}. Received: {received}"
            )
        limits = {self.level: self.num_embeddings, **self.condition_embeddings}
        if self.num_classes is not None:
            limits["label"] = self.num_classes + bool(self.label_dropout)
        arrays = {
            name: check_codes(
                side_by_side(to_numpy(batch[name])),
                limits[name],
                tuple(self.input[name].shape[1:]),
                repr(name),
                low=-1 if name in partial else 0,
                what="labels" if name == "label" else "codes",
            )
            for name in self.input_levels
        }
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"Expected as many of each. Received: {sizes}")
        return arrays

    # === Likelihood ===

    def nats(self, codes: Mapping[str, Tensor], batch_size: int = 32) -> np.ndarray | None:
        """How unlikely the prior finds codes.

        Args:
            codes: Dict of codes by level, and labels, as for `fit`.
            batch_size: Positive integer, maps at a time.

        Returns:
            float32 of shape `(N, rows, columns)`: `-log p` of each code of the level, given what
            the prior knows when it draws it; their sum is the map's. None of a prior that has no
            exact likelihood.

        Raises:
            ValueError: If the codes do not fit.
        """
        check_positive(batch_size=batch_size)
        arrays = self.check_batch(codes)
        count = len(arrays[self.level])
        size = min(batch_size, count)
        parts = []
        for numbers, batch in filled_batches(arrays, size):
            logits = self.predict(batch, batch_size=size, verbose=0)
            nats = cross_entropy(batch[self.level], ops.convert_to_tensor(logits))
            parts.append(ops.convert_to_numpy(nats)[: count - numbers[0]])
        return np.concatenate(parts)

    # === Drawing ===

    def _draw_codes(
        self, sampling: Sampling, inputs: Mapping[str, np.ndarray], uniforms: np.ndarray
    ) -> Iterator[tuple[Any, Tensor]]:
        """Draws the codes of a batch.

        Args:
            sampling: `Sampling`.
            inputs: Dict of int32 arrays for each of the prior's inputs; -1 for codes to draw. If
                `sampling.guided`, each example has two rows: as it was asked for, and without what
                guides; `Sampling.guide` makes one of their logits.
            uniforms: float32 in `[0, 1)`, shape `(batch, *uniforms_shape)`.

        Yields:
            Pairs `(rows, codes)` in any order: a row's number or a slice of rows, and their codes,
            int32 of shape `(batch, columns)` or `(batch, rows, columns)`; negative where logits
            are not finite, as `Sampling.draw` gives them.
        """
        raise TypeError(f"{type(self).__name__} does not say how it draws codes.")

    @property
    def uniforms_shape(self) -> tuple[int, ...]:
        """Of the random numbers that the drawing of a map takes."""
        return self.code_shape

    def check_sampling(self, sampling: Sampling) -> None:
        """Raises `ValueError` where the prior cannot draw as `sampling` says."""
        if sampling.guided and not (self.label_dropout or self.condition_dropout):
            raise ValueError(
                "Expected guidance_scale=1 of a prior that was trained without label_dropout and "
                f"condition_dropout. Received: guidance_scale={sampling.guidance_scale} for "
                f"{self.level!r}"
            )

    def generate(
        self,
        num_samples: int,
        labels: int | Sequence[int] | np.ndarray | None = None,
        condition: Mapping[str, Tensor] | None = None,
        codes: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float = 1.0,
        guidance_power: float | None = None,
        seed: int = 0,
        first_sample: int = 0,
        batch_size: int = 32,
        verbose: int = 1,
    ) -> np.ndarray:
        """Draws maps of codes.

        Sample `i` depends on `(seed, i, level)`, its label, condition and given codes, and on
        nothing else: not on the batch size, nor on what is drawn beside it (but for numbers so
        close that rounding decides). `generate(4)` is `generate(2)`, then
        `generate(2, first_sample=2)`.

        Args:
            num_samples: Positive integer, N.
            labels: For a prior with classes, an integer or integers of shape `(N,)`. With
                `label_dropout` also None, or `num_classes`: whatever label.
            condition: For a prior with coarser levels, a dict of their codes, each
                `(N, rows, columns)`.
            codes: None, or int codes of shape `(N, rows, columns)` of which those that are not -1
                are kept: the rest is completed.
            temperature: Positive float, divides the logits.
            top_k: None, or a positive integer: only the `k` most probable codes.
            top_p: None, or a float in `(0, 1]`: only the most probable codes that together reach
                this probability.
            guidance_scale: Non-negative float: how much to obey label (and, if it was trained with
                `condition_dropout`, coarser levels) at the cost of diversity. 1 as the prior
                learned, 0 not at all; each step is computed twice but at 1.
            guidance_power: None, or a positive float: the scale then rises from 1 to
                `guidance_scale` over the map, see `decoding.Sampling`.
            seed: Non-negative integer.
            first_sample: Non-negative integer, number of the first sample.
            batch_size: Positive integer, samples at a time.
            verbose: 1 shows a progress bar.

        Returns:
            int32 of shape `(N, rows, columns)`.

        Raises:
            ValueError: If labels or coarser levels are missing, an argument is out of range, or
                the logits are not finite.
        """
        sampling = Sampling(temperature, top_k, top_p, guidance_scale, guidance_power)
        self.check_sampling(sampling)
        check_positive(num_samples=num_samples, batch_size=batch_size)
        check_integer("seed", seed, 0)
        check_integer("first_sample", first_sample, 0)
        request = self._request(num_samples, labels, condition, codes)
        backend.sync_training_state(self)

        def draw(inputs, numbers):
            inputs = self._with_untold(inputs) if sampling.guided else inputs
            samples = (first_sample + int(number) for number in numbers)
            uniforms = sample_uniforms(seed, samples, self.level, self.uniforms_shape)
            return self._draw_codes(sampling, inputs, uniforms)

        return draw_batches(draw, request, self.code_shape, batch_size, self.level, verbose)

    def _request(self, num_samples, labels, condition, codes):
        """The inputs of all samples that `generate` is asked for: int32 arrays of N rows."""
        condition = condition or {}
        coarser = set(self.condition_factors)
        if not coarser <= set(condition):
            raise ValueError(
                f"Expected codes for the levels {sorted(coarser)}. Received: condition for "
                f"{sorted(condition)}"
            )
        if labels is None and self.label_dropout:
            labels = self.num_classes
        labels = labels_of_all(labels, self.num_classes, num_samples)
        request = {name: condition[name] for name in self.condition_factors}
        if codes is None:
            codes = np.full((num_samples, *self.code_shape), -1, "int32")
        request[self.level] = codes
        if labels is not None:
            request["label"] = labels
        arrays = self.check_batch(request, partial=(self.level,))
        if len(arrays[self.level]) != num_samples:
            sizes = {name: len(array) for name, array in arrays.items()}
            raise ValueError(f"Expected num_samples={num_samples} of each. Received: {sizes}")
        return {name: array.astype("int32") for name, array in arrays.items()}

    def _with_untold(self, inputs):
        """Two rows for each example: as it is, and without what the prior learned to do without."""
        inputs = {name: np.repeat(array, 2, axis=0) for name, array in inputs.items()}
        if self.label_dropout:
            inputs["label"][1::2] = self.num_classes
        if self.condition_dropout:
            for name in self.condition_factors:
                inputs[name][1::2] = -1
        return inputs

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "code_shape": list(self.code_shape),
            "num_embeddings": self.num_embeddings,
            "level": self.level,
            "condition_factors": self.condition_factors,
            "num_classes": self.num_classes,
            "condition_embeddings": self.condition_embeddings,
            "image_shape": self.image_shape,
            "codes_fingerprint": self.codes_fingerprint,
            "label_dropout": self.label_dropout,
            "condition_dropout": self.condition_dropout,
        }


class AutoregressivePrior(CodePrior):
    """A `CodePrior` whose logits at a position depend on the positions before it, in raster order.

    It draws one position after the other. A subclass cuts its network into `Steps`; full passes
    and steps give the same logits. Where coarser levels are first turned into features, by layers
    named `conditioner_<level>`, `_condition_map` says how those are joined.
    """

    # A function of a dict of layers and one of codes, both by level, or None.
    _condition_map: Callable[..., Tensor] | None = None

    def _steps(self) -> Steps:
        """The network cut into steps, for `RowDecoder`."""
        raise TypeError(f"{type(self).__name__} does not say what its steps are.")

    def condition_features(self, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """What the steps see of coarser levels: `(batch, rows, columns, units)`, or None."""
        return None if self._condition_map is None else self.conditioner(inputs)

    @functools.cached_property
    def conditioner(self) -> keras.Model:
        """Model from the coarser levels' codes to their features."""
        coarser = {name: self.input[name] for name in self.condition_factors}
        layers = {name: self.get_layer(f"conditioner_{name}") for name in coarser}
        joined: Any = self._condition_map
        return keras.Model(coarser, joined(layers, coarser), name="conditioner")

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        super().quantize(*args, **kwargs)
        # Programs that were compiled before hold the variables of before.
        for name in ("_row_decoder", "_position_decoder", "_compiled_features"):
            self.__dict__.pop(name, None)

    @functools.cached_property
    def _row_decoder(self):
        return RowDecoder(self._steps(), self.variables)

    @functools.cached_property
    def _position_decoder(self):
        return PositionDecoder(self._steps(), self.variables)

    @functools.cached_property
    def _compiled_features(self):
        return backend.compile_function(self.condition_features, self.variables)

    def _draw(self, sampling, inputs, uniforms):
        """Yields codes and logits of a batch, a row at a time."""
        features = None
        if self.condition_factors:
            coarser = {name: inputs[name] for name in self.condition_factors}
            coarser = keras.tree.map_structure(ops.convert_to_tensor, coarser)
            features = self._compiled_features(backend.split_batch(coarser))
        given = inputs[self.level][:: 2 if sampling.guided else 1]
        return self._row_decoder.rows(sampling, given, uniforms, features, inputs.get("label"))

    def _draw_codes(self, sampling, inputs, uniforms):
        for row, (codes, _) in enumerate(self._draw(sampling, inputs, uniforms)):
            yield row, codes
