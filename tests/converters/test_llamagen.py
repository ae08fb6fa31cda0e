import numpy as np
import pytest

from keras_vqvae2 import CodePrior
from keras_vqvae2.converters import convert_llamagen
from keras_vqvae2.decoding.sampling import Sampling


@pytest.fixture
def state(golden):
    data = golden("llamagen_transformer")
    return {k.removeprefix("state_dict."): v for k, v in data.items() if "state_dict." in k}


def test_golden_logits_whole_and_one_position_after_the_other(golden, state, tmp_path):
    data = golden("llamagen_transformer")
    convert_llamagen(state, num_heads=4, code_shape=(4, 4)).save_to_preset(tmp_path / "preset")
    prior = CodePrior.from_preset(tmp_path / "preset")
    assert prior.num_classes == 5 and prior.feed_forward_units == 96
    codes = {"top": data["codes"].reshape(-1, 4, 4), "label": data["labels"]}
    expected = data["logits"].reshape(-1, 4, 4, 24)
    np.testing.assert_allclose(prior.predict(codes, verbose=0), expected, atol=1e-4)
    rows = prior._draw(Sampling(), codes, np.zeros(codes["top"].shape, "float32"))
    stepwise = np.stack([np.asarray(logits) for _, logits in rows], axis=1)
    np.testing.assert_allclose(stepwise, expected, atol=1e-4)
    assert prior.nats(codes).mean() == pytest.approx(float(data["loss"]), rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_greedy_codes_are_its_own(golden, state, scale):
    prior = convert_llamagen(state, num_heads=4, code_shape=(4, 4))
    codes = prior.generate(2, labels=[1, 3], top_k=1, guidance_scale=scale, verbose=0)
    expected = golden("llamagen_transformer")[f"greedy_guidance_{scale}"]
    np.testing.assert_array_equal(codes.reshape(2, 16), expected)


def test_without_dropped_labels_all_labels_are_classes(state):
    prior = convert_llamagen(state, num_heads=4, code_shape=(2, 8), label_dropout=0.0)
    assert prior.num_classes == 6 and prior.code_shape == (2, 8)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("tok_embeddings.weight"), "Expected a checkpoint with the keys"),
        (lambda s: s.pop("layers.1.ffn_norm.weight"), "the key 'layers.1.ffn_norm.weight'"),
        (lambda s: s.update(more=np.zeros(3)), "Expected no further keys.*'more'"),
        (lambda s: s.update({"norm.weight": np.zeros(3)}), r"of shape \(32,\)"),
        (lambda s: s.update({"output.weight": np.zeros((9, 32))}), r"of shape \(24, 32\)"),
    ],
)
def test_other_checkpoints_are_refused(state, change, message):
    change(state)
    with pytest.raises(ValueError, match=message):
        convert_llamagen(state, num_heads=4)


def test_heads_have_to_fit(state):
    with pytest.raises(ValueError, match="multiple of 4 times the heads.*num_heads=12"):
        convert_llamagen(state)
