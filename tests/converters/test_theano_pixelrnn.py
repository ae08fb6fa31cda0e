import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import PixelCNN, PixelRNN
from keras_vqvae2.converters import convert_theano_pixelrnn

NAMES = {"pixelcnn_2016_theano": PixelCNN, "pixelrnn_diagonal_bilstm_theano": PixelRNN}


def state_of(data):
    return {k.removeprefix("state_dict."): v for k, v in data.items() if "state_dict." in k}


@pytest.mark.parametrize("name", NAMES)
def test_golden_probabilities_whole_and_one_pixel_after_the_other(golden, name):
    data = golden(name)
    images = data["images"]
    model = convert_theano_pixelrnn(state_of(data), images.shape[1:])
    assert type(model) is NAMES[name]
    logits = model.predict(images, verbose=0)
    probabilities = ops.convert_to_numpy(ops.softmax(logits))[..., 1:]
    np.testing.assert_allclose(probabilities, data["probabilities"], atol=1e-5)
    np.testing.assert_allclose(model.nats(images).sum((1, 2)), data["nats"], rtol=1e-5)
    given = {"image": images.astype("int32")}
    rows = model._rows(model.distribution.sampling(), given, 0, np.arange(len(images)))
    stepwise = np.stack([ops.convert_to_numpy(part) for _, part in rows], axis=1)
    np.testing.assert_allclose(stepwise, logits, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("InputConv.Filters"), "Expected a checkpoint with the keys"),
        (lambda s: s.pop("OutputConv2.Biases"), "the key 'OutputConv2.Biases'"),
        (lambda s: s.update(more=np.zeros(3)), "Expected no further keys.*'more'"),
    ],
)
def test_other_checkpoints_are_refused(golden, name, change, message):
    data = golden(name)
    state = state_of(data)
    change(state)
    with pytest.raises(ValueError, match=message):
        convert_theano_pixelrnn(state, data["images"].shape[1:])
