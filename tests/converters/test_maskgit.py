import keras
import numpy as np
import pytest

from keras_vqvae2 import CodePrior
from keras_vqvae2.converters import convert_maskgit


@pytest.fixture
def params(golden):
    data = golden("maskgit_transformer")
    return {k.removeprefix("params."): v for k, v in data.items() if k.startswith("params.")}


def test_golden_logits_of_all_words(golden, params):
    data = golden("maskgit_transformer")
    prior = convert_maskgit(params, num_classes=5)
    assert prior.code_shape == (4, 4) and prior.num_embeddings == 24
    words = keras.Model(prior.get_layer("tokens").output, prior.get_layer("logits").output)
    logits = words.predict(data["ids"], verbose=0)
    np.testing.assert_allclose(logits, data["logits"], atol=1e-4)


def test_golden_logits_of_a_prior(golden, params, tmp_path):
    # Of one class the first example is a label and codes.
    data = golden("maskgit_transformer")
    ids, expected = data["ids"][:1], data["logits"][:1, 1:, :28]
    assert ids[0, 0] == 28 and ids[0, 1:].max() < 28
    nested = {"params": {}}
    for key, value in params.items():
        *folders, name = key.removeprefix("params/").split("/")
        place = nested["params"]
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    convert_maskgit(nested, num_classes=1).save_to_preset(tmp_path / "preset")
    prior = CodePrior.from_preset(tmp_path / "preset")
    codes = {"top": ids[:, 1:].reshape(1, 4, 4), "label": np.zeros(1, "int32")}
    logits = prior.predict(codes, verbose=0).reshape(1, 16, 28)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert prior.generate(2, labels=0, verbose=0).shape == (2, 4, 4)


def test_a_file_and_a_map_that_is_no_square(params, tmp_path):
    from safetensors.numpy import save_file

    save_file(params, tmp_path / "maskgit.safetensors")
    prior = convert_maskgit(tmp_path / "maskgit.safetensors", 5, code_shape=(2, 8))
    assert prior.code_shape == (2, 8)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: p.pop("params/Embed_0/word_embeddings/embedding"), "Expected a checkpoint with"),
        (lambda p: p.pop("params/MlmLayer_0/mlm_ln/scale"), "the key 'MlmLayer_0/mlm_ln/scale'"),
        (lambda p: p.update(more=np.zeros(3)), "Expected no further keys.*'more'"),
        (lambda p: p.update({3: np.zeros(3)}), "Expected keys that are strings"),
    ],
)
def test_other_parameters_are_refused(params, change, message):
    change(params)
    with pytest.raises(ValueError, match=message):
        convert_maskgit(params, num_classes=5)


@pytest.mark.parametrize("settings", [{"num_classes": 30}, {"num_classes": None}])
def test_classes_and_positions_have_to_fit(params, settings):
    with pytest.raises(ValueError, match="Expected classes and a map for 30 words.* 17 tokens"):
        convert_maskgit(params, **settings)
    with pytest.raises(ValueError, match=r"code_shape=\(3, 5\)"):
        convert_maskgit(params, num_classes=5, code_shape=(3, 5))
