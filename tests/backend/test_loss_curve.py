import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

spec = importlib.util.spec_from_file_location("loss_curve", Path(__file__).parent / "loss_curve.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


@pytest.mark.compiled
def test_every_backend_repeats_the_curve():
    expected = json.loads(module.CURVE.read_text())
    assert len(expected) == 20 and expected[-1] < 0.9 * expected[0]
    _, losses = module.loss_curve()
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
