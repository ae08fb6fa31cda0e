import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import losses
from keras_vqvae2.losses.adversarial import ADVERSARIAL_LOSSES


@pytest.fixture(scope="module")
def vqgan(golden):
    return golden("field_vqgan")


@pytest.fixture(scope="module")
def logits(vqgan):
    return vqgan["train.logits_real"], vqgan["train.logits_fake"]


@pytest.mark.parametrize("kind", ["hinge", "vanilla", "non_saturating"])
def test_losses_are_those_of_the_field(vqgan, logits, kind):
    of_discriminator, of_generator = ADVERSARIAL_LOSSES[kind]
    name = kind.replace("_", "")
    np.testing.assert_allclose(
        of_discriminator(*logits), vqgan[f"{name}_discriminator_loss"], rtol=1e-5
    )
    expected = vqgan[
        "nonsaturating_generator_loss" if kind == "non_saturating" else "generator_loss"
    ]
    np.testing.assert_allclose(of_generator(logits[1]), expected, rtol=1e-4)


def test_lecam_moves_its_averages_after_it_looked_at_them(vqgan, logits):
    lecam = losses.LeCAM(decay=0.999)
    lecam.average_real.assign(vqgan["lecam.ema_real"])
    lecam.average_fake.assign(vqgan["lecam.ema_fake"])
    np.testing.assert_allclose(lecam(*logits), vqgan["lecam.loss"], rtol=1e-5)
    np.testing.assert_allclose(lecam(*logits, training=True), vqgan["lecam.loss"], rtol=1e-5)
    for kind in ("real", "fake"):
        average = ops.convert_to_numpy(getattr(lecam, f"average_{kind}"))
        np.testing.assert_allclose(average, vqgan[f"lecam.ema_{kind}_after"], rtol=1e-5)
    assert losses.LeCAM.from_config(lecam.get_config()).decay == 0.999
    with pytest.raises(ValueError, match="decay=1"):
        losses.LeCAM(decay=1)
