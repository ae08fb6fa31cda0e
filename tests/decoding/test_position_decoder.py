import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import PixelSnailPrior, TransformerPrior

SIZES = {"hidden_units": 8, "residual_units": 8, "num_blocks": 1, "block_layers": 1}
SIZES |= {"attention_heads": 2, "output_blocks": 0, "condition_blocks": 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda *a, **k: PixelSnailPrior(*a, **SIZES, **k),
        lambda *a, **k: TransformerPrior(*a, hidden_units=16, num_layers=1, num_heads=2, **k),
    ],
    ids=["pixelsnail", "transformer"],
)
def test_logits_are_those_of_a_full_pass_and_the_same_again(make, rng):
    prior = make((2, 3), 16, "bottom", {"top": 1}, 2)
    for variable in prior.trainable_variables:  # logits start at zero
        variable.assign(variable + rng.normal(scale=0.3, size=variable.shape))
    codes = {name: rng.integers(16, size=(2, 2, 3)).astype("int32") for name in ("top", "bottom")}
    codes["label"] = np.array([0, 1], "int32")
    features = prior._compiled_features({"top": ops.convert_to_tensor(codes["top"])})

    def walk():
        positions = prior._position_decoder.positions(2, (2, 3), features, codes["label"])
        found = [next(positions)]
        for values in codes["bottom"].reshape(2, -1).T[:-1]:
            found.append(positions.send(values))
        return np.stack(found, axis=1).reshape(2, 2, 3, 16)

    found = walk()
    wanted = ops.convert_to_numpy(prior(codes))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert wanted.std() > 0.1
    assert walk().tobytes() == found.tobytes()
