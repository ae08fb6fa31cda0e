import numpy as np
from keras import ops

from keras_vqvae2.metrics.code_histogram import CodeHistogram


def test_counts_every_code():
    histogram = CodeHistogram(4)
    histogram.update_state(np.array([[0, 3], [3, 3]]))
    histogram.update_state(np.array([1]), sample_weight=2.0)
    assert ops.convert_to_numpy(histogram.counts).tolist() == [1, 2, 0, 3]
