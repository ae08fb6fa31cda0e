import numpy as np
import pytest

from keras_vqvae2 import CodePrior
from keras_vqvae2.converters import convert_pytorch_gated_pixelcnn
from keras_vqvae2.decoding.sampling import Sampling


@pytest.fixture
def data(golden):
    return golden("gated_pixelcnn_codes_pytorch")


@pytest.fixture
def state(data):
    return {k.removeprefix("state_dict."): v for k, v in data.items() if "state_dict." in k}


def test_golden_logits_whole_and_one_position_after_the_other(data, state, tmp_path):
    convert_pytorch_gated_pixelcnn(state, (9, 9)).save_to_preset(tmp_path / "preset")
    prior = CodePrior.from_preset(tmp_path / "preset")
    codes = {"top": data["codes"], "label": data["labels"]}
    np.testing.assert_allclose(prior.predict(codes, verbose=0), data["logits"], atol=1e-4)
    rows = prior._draw(Sampling(), codes, np.zeros(codes["top"].shape, "float32"))
    stepwise = np.stack([np.asarray(logits) for _, logits in rows], axis=1)
    np.testing.assert_allclose(stepwise, data["logits"], atol=1e-4)
    np.testing.assert_allclose(prior.nats(codes).sum((1, 2)), data["nats"], rtol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("embedding.weight"), "Expected a checkpoint with the keys"),
        (lambda s: s.pop("layers.2.horiz_resid.bias"), "the key 'layers.2.horiz_resid.bias'"),
        (lambda s: s.update(more=np.zeros(3)), "Expected no further keys.*'more'"),
        (lambda s: s.update({"output_conv.2.weight": np.zeros((9, 512, 1, 1))}), r"of shape \(48"),
        (
            lambda s: s.update({"layers.1.horiz_stack.weight": np.zeros((40, 20, 1, 4))}),
            r"of shape \(40, 20, 1, 2\)",
        ),
    ],
)
def test_other_checkpoints_are_refused(state, change, message):
    change(state)
    with pytest.raises(ValueError, match=message):
        convert_pytorch_gated_pixelcnn(state)
