import numpy as np
import pytest

from keras_vqvae2 import PixelSnailPrior
from keras_vqvae2.converters import convert_pytorch_pixelsnail
from keras_vqvae2.decoding.sampling import Sampling


def load(golden, level):
    data = golden(f"pixelsnail_{level}_pytorch")
    state = {k.removeprefix("state_dict."): v for k, v in data.items() if "state_dict." in k}
    codes = {level: data["indices"].astype("int32")}
    if level == "bottom":
        codes["top"] = data["condition_indices"].astype("int32")
    return state, codes, data["logits_nchw"].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("level", ["top", "bottom"])
def test_golden_logits_whole_and_one_position_after_the_other(golden, level, tmp_path):
    state, codes, expected = load(golden, level)
    convert_pytorch_pixelsnail(state).save_to_preset(tmp_path / "preset")
    prior = PixelSnailPrior.from_preset(tmp_path / "preset")
    tolerance = 1e-3 * np.abs(expected).max()
    assert np.abs(prior.predict(codes, verbose=0) - expected).max() < tolerance
    rows = prior._draw(Sampling(), codes, np.zeros(codes[level].shape, "float32"))
    stepwise = np.stack([np.asarray(logits) for _, logits in rows], axis=1)
    assert np.abs(stepwise - expected).max() < tolerance


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("background"), r"Expected a checkpoint with the keys \['background'\]"),
        (lambda s: s.pop("vertical.conv.conv.bias"), "Expected the key 'vertical.conv.conv.bias'"),
        (lambda s: s.update(more=np.zeros(3)), "Expected no further keys.*'more'"),
        (lambda s: s.update({"out.2.conv.bias": np.zeros(3)}), r"of shape \(64,\)"),
    ],
)
def test_errors(golden, change, message):
    state, _, _ = load(golden, "top")
    change(state)
    with pytest.raises(ValueError, match=message):
        convert_pytorch_pixelsnail(state)
