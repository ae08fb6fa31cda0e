import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2, PresetModel, backend
from keras_vqvae2.callbacks import BestPreset


def build(policy="float32", **kwargs):
    model = VQVAE2(
        (16, 16, 3),
        hidden_units=8,
        residual_units=4,
        num_embeddings=16,
        embedding_dim=4,
        dtype=policy,
        **kwargs,
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    return model


def snapshot(model):
    variables = {v.path: v for v in [*model.variables, *model.optimizer.variables]}
    return {path: ops.convert_to_numpy(v).copy() for path, v in variables.items()}


@pytest.fixture
def images(rng):
    return rng.uniform(size=(8, 16, 16, 3)).astype("float32")


@pytest.mark.compiled
@pytest.mark.parametrize(
    "policy, bad",
    [("float32", np.nan), ("mixed_bfloat16", np.nan), ("mixed_float16", np.inf)],
)
def test_a_batch_that_is_not_finite_changes_nothing_and_is_counted(images, policy, bad):
    model = build(policy)
    model.fit(images, batch_size=4, verbose=0)
    before = snapshot(model)
    broken = images.copy()
    broken[5, 3, 3, 1] = bad
    logs = model.train_on_batch(broken, return_dict=True)
    after = snapshot(model)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    # The loss scale of float16 must fall when a step overflows; nothing else may move.
    assert all("loss_scale" in path for path in changed), changed
    assert bool(changed) == (policy == "mixed_float16")
    assert logs["skipped_steps"] == 1
    assert np.isnan(logs["loss"]) and np.isnan(logs["gradient_norm"])  # of no step that counts


def test_training_goes_on_after_a_skipped_batch(images):
    broken = images.copy()
    broken[0] = np.nan
    stream = np.concatenate([images, broken, images])
    model_a, model_b = build(), build()
    model_b.set_weights(model_a.get_weights())
    a = model_a.fit(stream, batch_size=8, shuffle=False, verbose=0).history
    b = model_b.fit(
        np.concatenate([images, images]), batch_size=8, shuffle=False, verbose=0
    ).history
    assert a["skipped_steps"] == [1]
    # The two good batches leave what they leave without the bad one between them.
    for x, y in zip(model_a.get_weights(), model_b.get_weights()):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    for name in ("loss", "psnr", "gradient_norm", "perplexity_top", "usage_bottom"):
        assert a[name][0] == pytest.approx(b[name][0], rel=1e-4)


def test_the_first_batch_may_be_the_bad_one(images):
    model = build()
    assert model.train_on_batch(images * np.nan, return_dict=True)["skipped_steps"] == 1
    initialized = model.get_layer("quantizer_top").initialized
    assert int(ops.convert_to_numpy(initialized)) == 0
    model.train_on_batch(images)
    assert int(ops.convert_to_numpy(initialized)) == 1


def test_gradient_norm_is_that_of_the_unscaled_loss(images):
    norms = {}
    for policy in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(3)
        model = build(policy)
        norms[policy] = model.train_on_batch(images, return_dict=True)["gradient_norm"]
    assert norms["mixed_float16"] == pytest.approx(norms["float32"], rel=0.05)


def test_an_error_leaves_the_model_as_it_was(images):
    """On JAX Keras' loops hold the weights; what goes wrong in them must not lose any."""
    vqvae = build()
    vqvae.fit(images, batch_size=4, verbose=0)
    before = snapshot(vqvae)

    def batches(count):
        yield from [(images[:4],)] * count
        raise RuntimeError("no more")

    wrong = {"y": np.zeros(8), "sample_weight": np.ones((8, 2)), "verbose": 0}
    for use in (vqvae.fit, vqvae.evaluate):
        with pytest.raises(ValueError, match="sample weights of shape"):
            use(images, **wrong)
    with pytest.raises(Exception, match="no more"):
        vqvae.evaluate(batches(2), verbose=0)
    for path, value in snapshot(vqvae).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)
    with pytest.raises(Exception, match="no more"):
        vqvae.fit(batches(2), verbose=0)
    after = snapshot(vqvae)
    assert all(np.isfinite(value).all() for value in after.values())
    assert any((after[path] != value).any() for path, value in before.items())
    vqvae.fit(images, batch_size=4, verbose=0)


def test_fit_goes_on_after_averages_took_the_place_of_weights(images):
    vqvae = build()
    vqvae.compile(keras.optimizers.Adam(1e-3, use_ema=True))
    for _ in range(2):
        logs = vqvae.fit(images, batch_size=4, verbose=0).history
        assert np.isfinite(logs["loss"][0]) and logs["skipped_steps"] == [0]


def test_evaluate_lists_each_metric_once_however_often_it_is_compiled(images):
    vqvae = build()
    for _ in range(3):
        vqvae.compile("adam")
        values = vqvae.evaluate(images, verbose=0)
        logs = vqvae.evaluate(images, verbose=0, return_dict=True)
        assert len(values) == len(logs)
        assert len(vqvae.metrics_names) == len(set(vqvae.metrics_names)) == len(logs) + 2
        assert dict(zip(vqvae.metrics_names, values)) == pytest.approx(logs)
        vqvae.fit(images, verbose=0)


def test_evaluate_reports_no_training_metrics(images):
    model = build()
    model.fit(images, verbose=0, validation_data=(images,))
    logs = model.evaluate(images, verbose=0, return_dict=True)
    assert "gradient_norm" not in logs and "skipped_steps" not in logs


@pytest.mark.compiled
def test_jit_compile_gives_the_same_step(images):
    if keras.backend.backend() == "jax":
        pytest.skip("JAX always compiles")
    plain, compiled = build(), build()
    compiled.set_weights(plain.get_weights())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=True)
    # PyTorch's compiler needs minutes and then fails: it says so, and trains without.
    told = any("It trains without" in str(warning.message) for warning in caught)
    assert told == (keras.backend.backend() == "torch") != compiled.jit_compile
    for _ in range(3):
        a = plain.train_on_batch(images, return_dict=True)
        b = compiled.train_on_batch(images, return_dict=True)
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


# === Steps in a row that do not count ===


class Batches(keras.utils.PyDataset):
    """As many batches, of which those with the given numbers are not finite."""

    def __init__(self, images, count, broken):
        super().__init__()
        self.images, self.count, self.broken = images, count, broken

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return np.full_like(self.images, np.nan) if i in self.broken else self.images


@pytest.mark.compiled
def test_training_ends_when_too_many_steps_in_a_row_are_skipped(images, tmp_path):
    model = build()
    assert model.most_skipped_steps == 100
    model.most_skipped_steps = 7
    path = tmp_path / "model.keras"
    callbacks = [keras.callbacks.ModelCheckpoint(path), BestPreset(tmp_path, "loss")]
    batches = Batches(images[:2], 5, range(2, 5))
    history = model.fit(batches, epochs=2, shuffle=False, verbose=0).history  # 3 of 5, twice
    assert history["skipped_steps"] == [3, 3]
    before = snapshot(model)
    with pytest.raises(FloatingPointError, match=r"Received: \d+ steps in a row without, up to"):
        model.fit(Batches(images[:2], 8, range(8)), verbose=0, callbacks=callbacks)
    assert list(tmp_path.iterdir()) == []  # of such an epoch nothing is kept
    for path, value in snapshot(model).items():
        np.testing.assert_array_equal(value, before[path])
    # Over short epochs too.
    with pytest.raises(FloatingPointError, match="of epoch [34]"):
        model.fit(Batches(images[:2], 3, range(3)), epochs=9, verbose=0)


def test_the_epoch_of_the_log_is_not_that_of_validation(images):
    for held_out in (None, images):
        batches = Batches(images[:2], 3, (1, 2))
        history = build().fit(batches, validation_data=held_out, epochs=2, verbose=0).history
        assert history["skipped_steps"] == [2, 2]


@pytest.mark.compiled
def test_the_scale_of_the_loss_stays_at_1(images):
    model = build("mixed_float16")
    model.fit(Batches(images[:2], 18, range(18)), verbose=0)
    assert float(ops.convert_to_numpy(model.optimizer.dynamic_scale)) == 1.0
    logs = model.train_on_batch(images, return_dict=True)
    assert logs["skipped_steps"] == 0 and np.isfinite(logs["loss"])


def test_an_epoch_without_a_step_is_never_the_best(images, tmp_path):
    model = build()
    keras_best = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.keras", monitor="loss", save_best_only=True
    )
    ours = [BestPreset(tmp_path / name, name) for name in ("loss", "val_loss")]
    callbacks = [keras_best, *ours]
    model.fit(images * np.nan, validation_data=images, callbacks=callbacks, verbose=0)
    assert list(tmp_path.iterdir()) == []
    model.fit(
        images, validation_data=images, callbacks=callbacks, epochs=2, initial_epoch=1, verbose=0
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.keras", "loss", "val_loss"]


# === Two updates in one step ===


@keras.saving.register_keras_serializable(package="tests")
class WithCritic(PresetModel):
    """A model that doubles, and a critic with an optimizer of its own: an adversarial step."""

    def __init__(self, **kwargs):
        x = keras.Input((3,))
        generator = keras.layers.Dense(3, name="generator")
        super().__init__(inputs=x, outputs=generator(x), **kwargs)
        self.generator = generator
        self.critic = keras.layers.Dense(1, name="critic")
        self.critic.build((None, 3))
        self._make_trackers()

    def compile(self, optimizer, critic_optimizer):
        super().compile(optimizer=BothOptimizers(optimizer, critic_optimizer))

    def step_outputs(self, x, training):
        return {"real": 2.0 * x, "made": self(x, training=training)}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        error = ops.mean(ops.square(y_pred["real"] - y_pred["made"]))
        return error - 0.1 * ops.mean(self.critic(y_pred["made"]))

    def train_batch(self, x, y, sample_weight):
        def generate():
            outputs = self.step_outputs(x, training=True)
            return self.compute_loss(x, y, outputs, sample_weight), outputs

        def judge():
            made = ops.stop_gradient(self(x, training=True))
            scores = self.critic(made) - self.critic(2.0 * x)
            return ops.mean(ops.relu(1.0 + scores)), ()

        update = backend.guarded_update(
            generate, self.generator.trainable_variables, self.optimizer.of_generator
        )
        backend.guarded_update(
            judge,
            self.critic.trainable_variables,
            self.optimizer.of_critic,
            finite=update.finite,
        )
        self.update_train_metrics(x, update)


class BothOptimizers(keras.optimizers.Optimizer):
    """Two optimizers under one name, so that Keras hands the state of both around."""

    def __init__(self, of_generator, of_critic):
        super().__init__(learning_rate=1.0)
        self.of_generator, self.of_critic = of_generator, of_critic

    def build(self, variables):
        super().build(variables)
        for name, optimizer in (("generator", self.of_generator), ("critic", self.of_critic)):
            optimizer.build([v for v in variables if v.path.split("/")[0] == name])

    @property
    def variables(self):
        return [*super().variables, *self.of_generator.variables, *self.of_critic.variables]


@pytest.mark.compiled
def test_a_second_optimizer_is_a_second_guarded_update(rng):
    model = WithCritic()
    model.compile(keras.optimizers.Adam(0.05), keras.optimizers.SGD(0.1))
    x = rng.normal(size=(32, 3)).astype("float32")
    before = snapshot(model)
    losses = model.fit(x, batch_size=16, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    after = snapshot(model)
    for part in ("generator/kernel", "critic/kernel"):
        assert (before[part] != after[part]).any()
    model.fit(np.full_like(x, np.nan), verbose=0)
    for path, value in snapshot(model).items():
        np.testing.assert_array_equal(value, after[path])


def test_clones_come_from_the_config():
    """`keras.models.clone_model` makes a bare graph of any functional subclass."""
    vqvae = VQVAE2((16, 16, 3), num_embeddings=8, hidden_units=8, residual_units=4)
    with pytest.raises(TypeError, match=r"Expected VQVAE2.from_config\(model.get_config\(\)\)"):
        keras.models.clone_model(vqvae)
    assert VQVAE2.from_config(vqvae.get_config()).count_params() == vqvae.count_params()
