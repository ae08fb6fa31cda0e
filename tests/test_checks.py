import numpy as np
import pytest

from keras_vqvae2.validation import check_positive


def test_positive_integers_pass():
    check_positive(a=1, b=np.int64(3), c=2.0)


@pytest.mark.parametrize("value", [0, -1, 1.5, None, "many", float("nan"), float("inf"), [1]])
def test_anything_else_is_named(value):
    with pytest.raises(ValueError, match="Expected a positive integer. Received: size="):
        check_positive(other=1, size=value)
