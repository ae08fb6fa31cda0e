import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "evaluate_priors.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("evaluate_priors", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("preset", "codes", "output", "batch_size"):
        delattr(module.FLAGS, name)
    sys.modules.pop("evaluate_priors", None)


def test_the_baseline_is_the_cross_entropy_of_smoothed_frequencies(script):
    train = np.array([[[0, 1]], [[0, 1]], [[0, 2]], [[1, 2]]])  # 4 maps of 1x2, 3 codes
    validation = np.array([[[0, 1]], [[2, 0]]])
    # Position 0 has the counts 3, 1, 0 and position 1 the counts 0, 2, 2; plus one each.
    expected = -np.log([4 / 7, 3 / 7, 1 / 7, 1 / 7]).mean()
    assert script.position_nats(train, validation, 3) == pytest.approx(expected)
