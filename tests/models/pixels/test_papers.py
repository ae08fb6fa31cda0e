"""The papers' networks, by numbers of a float64 evaluation of their equations."""

import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import GatedPixelCNN, PixelCNN, PixelRNN


def assign(variable, value):
    variable.assign(value.reshape(variable.shape))


def conv(layer, weights, key):
    """A kernel is stored whole there; here without what its mask would zero."""
    rows, columns = layer.kernel.shape[:2]
    layer.kernel.assign(weights[f"{key}/kernel"][:rows, :columns])
    layer.bias.assign(weights[f"{key}/bias"])


def weights_of(data):
    return {k.removeprefix("weights."): v for k, v in data.items() if k.startswith("weights.")}


def layers_of(weights):
    return len({key.split("/")[0] for key in weights if key.startswith("layer_")})


def check(model, data, **inputs):
    images = {"image": data["levels"], **inputs}
    height, width, colours = data["levels"].shape[1:]
    expected = data["logits"].reshape(-1, height, width, colours * model.levels)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)
    np.testing.assert_allclose(model.nats(images).sum((1, 2)), data["nats"], rtol=1e-5)
    given = {**images, "image": data["levels"].astype("int32")}
    rows = model._rows(model.distribution.sampling(), given, 0, np.arange(len(expected)))
    stepwise = np.stack([ops.convert_to_numpy(logits) for _, logits in rows], axis=1)
    np.testing.assert_allclose(stepwise.reshape(expected.shape), expected, atol=1e-5)


def chain(kind, shape, weights, levels):
    sizes = {
        "hidden_units": weights["layer_0/expand/kernel"].shape[2],
        "num_layers": layers_of(weights),
        "head_units": weights["head_0/bias"].size,
        "first_kernel_size": weights["input/kernel"].shape[0],
        "levels": levels,
    }
    return PixelCNN(shape, **sizes) if kind == "pixelcnn" else PixelRNN(shape, kind, **sizes)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["pixelcnn", "row_lstm", "diagonal_bilstm"])
def test_golden_logits_of_2016(golden, kind):
    data = golden(f"paper_{kind}")
    weights, levels = weights_of(data), data["logits"].shape[-1]
    model = chain(kind, data["levels"].shape[1:], weights, levels)
    conv(model.get_layer("first").conv, weights, "input")
    for i in range(model.num_layers):
        layer, key = model.get_layer(f"layer_{i}"), f"layer_{i}"
        conv(layer.expand, weights, f"{key}/expand")
        if kind == "pixelcnn":
            conv(layer.reduce, weights, f"{key}/reduce")
            conv(layer.conv, weights, f"{key}/conv")
        elif kind == "row_lstm":
            conv(layer.input_to_state, weights, f"{key}/input_to_state")
            assign(layer.state_to_state, weights[f"{key}/state_to_state/kernel"])
            for variable, name in zip(layer.initial, ("hidden", "cell")):
                assign(variable, weights[f"{key}/initial_{name}"])
        else:
            for side in ("left", "right"):
                conv(layer._part(side, "input"), weights, f"{key}/{side}/input_to_state")
                states = weights[f"{key}/{side}/state_to_state/kernel"]
                assign(layer._part(side, "states"), states)
                for variable, name in zip(layer._part(side, "initial"), ("hidden", "cell")):
                    assign(variable, weights[f"{key}/{side}/initial_{name}"])
    for layer, key in zip(model.get_layer("head").convs, ("head_0", "head_1", "logits")):
        conv(layer, weights, key)
    check(model, data)


@pytest.mark.compiled
def test_golden_logits_of_gated_pixelcnn(golden):
    data = golden("paper_gated_pixelcnn")
    weights, levels = weights_of(data), data["logits"].shape[-1]
    model = GatedPixelCNN(
        data["levels"].shape[1:],
        num_classes=len(weights["layer_0/label/kernel"]),
        hidden_units=weights["layer_0/output/bias"].size,
        num_layers=layers_of(weights),
        kernel_size=weights["layer_1/vertical/kernel"].shape[1],
        first_kernel_size=weights["layer_0/vertical/kernel"].shape[1],
        head_units=weights["head_0/bias"].size,
        levels=levels,
        condition_channels=data["space"].shape[-1],
    )
    for i in range(model.num_layers):
        layer, key = model.get_layer(f"layer_{i}"), f"layer_{i}"
        conv(layer.vertical, weights, f"{key}/vertical")
        conv(layer.horizontal, weights, f"{key}/horizontal")
        conv(layer.output_conv, weights, f"{key}/output")
        assign(layer.to_horizontal.kernel, weights[f"{key}/vertical_to_horizontal/kernel"])
        assign(layer.to_horizontal.bias, weights[f"{key}/vertical_to_horizontal/bias"])
        assign(layer.label_table, weights[f"{key}/label/kernel"])
        assign(layer.condition_projection.kernel, weights[f"{key}/space/kernel"])
    for layer, key in zip(model.get_layer("head").convs, ("head_0", "logits")):
        conv(layer, weights, key)
    check(model, data, label=data["labels"], condition=data["space"])
    drawn = model.generate(2, labels=data["labels"], condition=data["space"], verbose=0)
    assert drawn.shape == data["levels"].shape and drawn.max() < levels
    with pytest.raises(ValueError, match="Expected a condition"):
        model.generate(2, labels=0)
    with pytest.raises(ValueError, match="Expected floats of shape .batch, 7, 6, 2"):
        model.generate(2, labels=0, condition=np.zeros((2, 7, 6, 3), "float32"))
