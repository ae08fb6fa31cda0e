import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import ConditionDropout


def test_hides_whole_examples_at_their_rates_and_equal_rates_together():
    dropout = ConditionDropout(
        {"label": 0.25, "top": 0.25, "middle": 0.5}, {"label": 3, "top": -1, "middle": -2}, seed=1
    )
    inputs = {
        "label": np.zeros(2000, "int32"),
        "top": np.zeros((2000, 2, 3), "int32"),
        "middle": np.zeros((2000, 1, 1), "int32"),
    }
    outputs = {k: ops.convert_to_numpy(v) for k, v in dropout(inputs, training=True).items()}
    assert {k: set(np.unique(v)) for k, v in outputs.items()} == {
        "label": {0, 3}, "top": {-1, 0}, "middle": {-2, 0},
    }  # fmt: skip
    hidden = {k: (v.reshape(2000, -1) != 0).all(1) for k, v in outputs.items()}
    assert (outputs["top"] == outputs["top"][:, :1, :1]).all()
    assert (hidden["label"] == hidden["top"]).all()
    assert hidden["label"].mean() == pytest.approx(0.25, abs=0.04)
    assert hidden["middle"].mean() == pytest.approx(0.5, abs=0.05)
    again = ops.convert_to_numpy(dropout(inputs, training=True)["label"])
    assert (again != outputs["label"]).any()


def test_keeps_all_without_training():
    labels = np.arange(5)
    for training in (False, None):
        told = ConditionDropout({"label": 0.9}, {"label": 9})({"label": labels}, training=training)
        np.testing.assert_array_equal(told["label"], labels)


def test_config_and_errors():
    dropout = ConditionDropout({"label": 0.1}, {"label": 9}, seed=2, name="dropout")
    assert ConditionDropout.from_config(dropout.get_config()).get_config() == dropout.get_config()
    with pytest.raises(ValueError, match=r"\[0, 1\). Received: 1.5 for 'label'"):
        ConditionDropout({"label": 1.5}, {"label": 9})
    with pytest.raises(ValueError, match=r"values for \['label'\]. Received: values for \['top'\]"):
        ConditionDropout({"label": 0.5}, {"top": 9})
