import keras
import numpy as np
import pytest

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior
from keras_vqvae2.data import sample_photographs
from keras_vqvae2.metrics import FrechetDistance, PrecisionRecall
from keras_vqvae2.models.vqvae2.levels import touched

SMALL = {
    "num_embeddings": 12,
    "hidden_units": 8,
    "residual_units": 6,
    "num_blocks": 1,
    "block_layers": 1,
    "kernel_size": 3,
    "attention_heads": 2,
    "condition_blocks": 0,
    "condition_kernel_size": 3,
    "output_blocks": 0,
    "num_classes": 2,
}


def prior(level, code_shape, **changes):
    model = PixelSnailPrior(code_shape, level=level, **{**SMALL, **changes})
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    return model


def vqvae(**changes):
    return VQVAE2(
        (16, 16, 3), num_embeddings=12, hidden_units=8, residual_units=4, **changes
    )  # fmt: skip


def priors(**changes):
    return {
        "top": prior("top", (2, 2), **changes),
        "bottom": prior("bottom", (4, 4), condition_factors={"top": 2}, **changes),
    }


@pytest.fixture(scope="module")
def generator():
    return HierarchicalImageGenerator(vqvae(), priors(), ["cat", "dog"])


def test_classes_have_names_or_numbers(generator):
    assert generator.class_names == ["cat", "dog"]
    parts = generator.vqvae, generator.priors
    assert HierarchicalImageGenerator(*parts).class_names == ["0", "1"]


def test_settings_of_levels_are_its_own_with_the_given_in_their_place(generator):
    own = {"top": {"temperature": 0.9, "top_k": 5}}
    settled = HierarchicalImageGenerator(generator.vqvae, generator.priors, settings=own)
    settings = settled.level_settings(top_k={"bottom": 3}, top_p=0.5)
    top = {"temperature": 0.9, "top_k": 5, "top_p": 0.5}
    assert settings == {"top": top, "bottom": {"top_k": 3, "top_p": 0.5}}
    assert settled.settings["top"] == own["top"]
    with pytest.raises(ValueError, match="Expected the levels .*top_k={'middle': 3}"):
        settled.level_settings(top_k={"middle": 3})


def test_an_image_depends_on_its_number_seed_and_label_only(generator):
    labels = ["cat", 1, "dog", 0, 1]
    images = generator.generate(5, labels=labels, seed=3, verbose=0)
    assert images.shape == (5, 16, 16, 3) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    again = generator.generate(5, labels=labels, seed=3, batch_size=2, verbose=0)
    np.testing.assert_allclose(again, images, atol=1e-5)
    later = generator.generate(2, labels=labels[3:], seed=3, first_image=3, verbose=0)
    np.testing.assert_allclose(later, images[3:], atol=1e-5)
    other = generator.generate(5, labels=labels, seed=4, verbose=0)
    assert (np.abs(other - images).max(axis=(1, 2, 3)) > 1e-3).all()


def test_what_two_workers_measured_merges_into_what_one_measures(generator, rng):
    def features(images):
        return images.mean(axis=(1, 2))  # (N, 3)

    reference = features(rng.uniform(size=(12, 16, 16, 3)))
    for metric in (FrechetDistance, PrecisionRecall):
        one, first, second = (metric(reference) for _ in range(3))
        one.update_state(features(generator.generate(8, seed=5, verbose=0)))
        for worker, start, count in ((first, 0, 5), (second, 5, 3)):
            images = generator.generate(count, seed=5, first_image=start, verbose=0)
            worker.update_state(features(images))
        first.merge_state([second])
        # As far as rounding goes: batches are of other sizes.
        one, merged = (keras.tree.flatten(m.result()) for m in (one, first))
        np.testing.assert_allclose(merged, one, rtol=1e-4)


def test_classes_take_turns_where_none_is_asked_for(generator):
    images = generator.generate(4, verbose=0)
    expected = generator.generate(4, labels=[0, 1, 0, 1], verbose=0)
    np.testing.assert_array_equal(images, expected)


def test_settings_by_level_and_by_default(generator):
    cold = {"top": 1e-5, "bottom": 1e-5}
    images = generator.generate(3, labels=0, temperature=cold, verbose=0)
    # Almost the most probable codes, so almost all the same.
    assert np.abs(images - images[:1]).max() < 1e-5
    settings = {"top": {"temperature": 1e-5}, "bottom": {"top_k": 1}}
    by_default = HierarchicalImageGenerator(generator.vqvae, generator.priors, settings=settings)
    np.testing.assert_allclose(by_default.generate(3, labels=0, verbose=0), images, atol=1e-5)


def test_given_codes_are_kept_and_finer_ones_drawn(generator, rng):
    images = rng.uniform(size=(3, *generator.vqvae.image_shape)).astype("float32")
    codes = generator.vqvae.encode(images)
    options = {"labels": [0, 1, 0], "seed": 1, "verbose": 0}
    whole = generator.generate(3, codes=codes, **options)
    np.testing.assert_allclose(whole, generator.vqvae.decode(codes), atol=1e-6)
    drawn = generator.generate(3, codes={"top": codes["top"]}, batch_size=2, **options)
    assert (drawn != whole).any() and (drawn != generator.generate(3, **options)).any()
    bottom = generator.priors["bottom"].generate(
        3, [0, 1, 0], {"top": codes["top"]}, seed=1, verbose=0, **generator.settings["bottom"]
    )
    expected = generator.vqvae.decode({"top": codes["top"], "bottom": bottom})
    np.testing.assert_allclose(drawn, expected, atol=1e-6)
    nothing = {level: np.full_like(maps, -1) for level, maps in codes.items()}
    free = generator.generate(3, codes=nothing, **options)
    np.testing.assert_allclose(free, generator.generate(3, **options), atol=1e-6)


def test_given_codes_that_do_not_fit_are_refused_at_the_call(generator):
    top = np.zeros((2, *generator.vqvae.code_shapes()["top"]), "int32")
    for codes, message in (
        ({"middle": top}, r"levels \('top', 'bottom'\). Received: codes of \('middle',\)"),
        ({"top": top[:1]}, r"num_images=2 images. Received: 1 in codes\['top'\]"),
        ({"bottom": top}, r"Received: codes\['bottom'\] of shape"),
        ({"top": top + 99}, r"Received: codes\['top'\] from 99 to 99"),
    ):
        with pytest.raises(ValueError, match=message):
            generator.generate_batches(2, codes=codes)


def test_completion_keeps_pixels_and_invents_the_rest(generator, rng):
    images = rng.uniform(size=(2, 16, 16, 3)).astype("float32")
    mask = np.zeros((16, 16), bool)
    mask[8:, 8:] = True
    completed = generator.complete(images, mask, labels=[0, 1], verbose=0)
    np.testing.assert_array_equal(completed[:, ~mask], images[:, ~mask])
    assert (np.abs(completed - images)[:, mask].max(axis=(1, 2)) > 0.01).all()
    # What is hidden does not matter.
    hidden = images.copy()
    hidden[:, mask] = 0.0
    np.testing.assert_array_equal(generator.complete(hidden, mask, [0, 1], verbose=0), completed)
    nothing = generator.complete(images, np.zeros((2, 16, 16)), [0, 1], verbose=0)
    np.testing.assert_array_equal(nothing, images)
    pixels = (255 * images).astype("uint8")
    whole = generator.complete(pixels, np.ones((16, 16)), [0, 1], verbose=0)
    expected = generator.generate(2, labels=[0, 1], verbose=0)
    np.testing.assert_allclose(whole, expected, atol=1e-5)


def test_codes_that_touch_the_mask_and_their_neighbours_are_drawn():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 7, 0] = True
    expected = np.zeros((4, 4), bool)
    expected[2:, :2] = True
    np.testing.assert_array_equal(touched(mask, (4, 4))[0], expected)


def test_batches_are_there_before_an_interrupt_that_goes_through(generator, monkeypatch):
    whole = generator.generate(3, verbose=0)
    bottom = generator.priors["bottom"]
    draw, calls = bottom._draw, []

    def interrupted(*args):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr(bottom, "_draw", interrupted)
    batches = generator.generate_batches(3, batch_size=2, verbose=0)
    np.testing.assert_allclose(next(batches), whole[:2], atol=1e-5)
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    calls[:] = [0]
    with pytest.raises(KeyboardInterrupt):
        generator.generate(3, verbose=0)


def test_batches_check_their_arguments_at_the_call(generator):
    with pytest.raises(ValueError, match="num_images=0"):
        generator.generate_batches(0)
    with pytest.raises(ValueError, match="first_image=-1"):
        generator.generate_batches(1, first_image=-1)


@pytest.mark.parametrize("weights_dtype", [None, "float16"])
def test_one_directory_holds_all(generator, tmp_path, weights_dtype):
    path = tmp_path / "preset"
    for _ in range(2):  # the second takes the place of the first
        generator.save_to_preset(path, weights_dtype)
    again = HierarchicalImageGenerator.from_preset(path)
    assert again.get_config() == generator.get_config()
    images = again.generate(2, seed=1, verbose=0)
    if weights_dtype is None:
        np.testing.assert_allclose(images, generator.generate(2, seed=1, verbose=0), atol=1e-5)
    half = HierarchicalImageGenerator.from_preset(path, dtype="mixed_bfloat16")
    assert half.priors["top"].compute_dtype == half.vqvae.compute_dtype == "bfloat16"
    assert half.generate(1, verbose=0).shape == (1, 16, 16, 3)
    assert PixelSnailPrior.from_preset(path / "prior_bottom").level == "bottom"
    with pytest.raises(ValueError, match="use HierarchicalImageGenerator.from_preset"):
        VQVAE2.from_preset(path)
    (path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="holds a preset and nothing else.*notes.txt"):
        generator.save_to_preset(path)


def test_what_does_not_fit_is_named():
    good = priors()
    with pytest.raises(ValueError, match=r"priors for the levels \('top', 'bottom'\), got"):
        HierarchicalImageGenerator(vqvae(), [good["top"]])
    cases = [
        ({"num_embeddings": 9}, "12 codes of 'top' in the prior of 'top', got 9"),
        ({"code_shape": (3, 2)}, r"maps of \(2, 2\) in the prior of 'top', got \(3, 2\)"),
        ({"num_classes": 3}, r"one number of classes, got \[2, 3\]"),
        ({"codes_fingerprint": "beef"}, "trained on codes of the VQVAE2 with the fingerprint"),
        ({"level": "bottom"}, "the prior of 'top' to model it, got one of 'bottom'"),
    ]
    for changes, message in cases:
        top = prior(**{"level": "top", "code_shape": (2, 2), **changes})
        with pytest.raises(ValueError, match=message):
            HierarchicalImageGenerator(vqvae(), {**good, "top": top})
    for factors, message in [({"top": 1}, "as condition 'top'"), ({"x": 2}, "conditions of")]:
        bottom = prior("bottom", (4, 4), condition_factors=factors)
        with pytest.raises(ValueError, match=message):
            HierarchicalImageGenerator(vqvae(), {**good, "bottom": bottom})
    with pytest.raises(ValueError, match=r"one number of classes, got \[2, 3\]"):
        HierarchicalImageGenerator(vqvae(), good, ["a", "b", "c"])


def test_settings_of_levels_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match=r"levels \('top', 'bottom'\). Received: .*\['botom'\]"):
        HierarchicalImageGenerator(vqvae(), priors(), settings={"botom": {"temperature": 0.5}})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"labels": "bird"}, r"in \[0, 2\) or one of \['cat', 'dog'\]. Received: 'bird'"),
        ({"labels": 2}, "Received: 2"),
        ({"labels": [0]}, "Expected 3 labels. Received: 1"),
        ({"temperature": {"middle": 1.0}}, r"Expected the levels \('top', 'bottom'\)"),
        ({"temperature": -1}, "Received: temperature=-1"),
        ({"top_p": {"top": 0}}, "Received: top_p=0"),
        ({"top_k": 0}, "Received: top_k=0"),
        ({"seed": -1}, "Received: seed=-1"),
        ({"num_images": 0}, "Received: num_images=0"),
        ({"batch_size": 0}, "Received: batch_size=0"),
    ],
)
def test_bad_requests(generator, arguments, message):
    with pytest.raises(ValueError, match=message):
        generator.generate(**{"num_images": 3, **arguments}, verbose=0)


def test_bad_completions(generator):
    images = np.zeros((2, 16, 16, 3), "float32")
    cases = [
        (images[:, :8], np.ones((8, 16)), 0, r"images of shape \('N', 16, 16, 3\)"),
        (images, np.ones((16, 8)), 0, r"Expected a mask of shape \(16, 16\)"),
        (images, np.ones((3, 16, 16)), 0, r"Received: mask of shape \(3, 16, 16\)"),
        (images, np.ones((16, 16)), None, "Expected labels below 2. Received: labels=None"),
    ]
    for bad_images, mask, labels, message in cases:
        with pytest.raises(ValueError, match=message):
            generator.complete(bad_images, mask, labels, verbose=0)


PARAMETERS = {
    "cartoonset_128": 9_094_423,
    "clothing_64": 10_427_199,
    "eurosat_64": 8_799_319,
    "imagenette_128": 10_472_639,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_bundled_generators(name):
    assert set(HierarchicalImageGenerator.presets) == set(PARAMETERS)
    entry = HierarchicalImageGenerator.presets[name]
    generator = HierarchicalImageGenerator.from_preset(name)
    models = [generator.vqvae, *generator.priors.values()]
    parameters = sum(model.count_params() for model in models)
    assert parameters == entry["parameters"] == PARAMETERS[name]
    assert generator.vqvae.image_shape == entry["image_shape"]
    # A prior that was trained finds its own kind of codes far more likely than chance does.
    images = sample_photographs(generator.vqvae.image_shape[:2]) / np.float32(255)
    if name in ("cartoonset_128", "eurosat_64"):  # which know no photographs of things
        images = generator.generate(8, labels=0, verbose=0)
    codes = {**generator.vqvae.encode(images), "label": np.zeros(8, "int32")}
    for prior in generator.priors.values():
        prior.compile()
        assert prior.evaluate(codes, verbose=0, return_dict=True)["loss"] < 5.0


def test_a_preset_without_weights_and_with_other_settings():
    settings = {"top": {"temperature": 0.8}}
    made = HierarchicalImageGenerator.from_preset(
        "clothing_64", load_weights=False, settings=settings
    )
    assert made.settings["top"] == {"temperature": 0.8}
    assert {prior.codes_fingerprint for prior in made.priors.values()} == {None}
