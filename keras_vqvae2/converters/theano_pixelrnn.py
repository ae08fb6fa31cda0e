"""igul222/pixel_rnn's binary models, as `PixelCNN` and `PixelRNN`."""

from collections.abc import Sequence

import numpy as np

from keras_vqvae2.converters.checkpoint_files import StateDict
from keras_vqvae2.hints import DTypePolicy, FilePath, Tensor
from keras_vqvae2.models.pixelrnn.pixelcnn import PixelCNN
from keras_vqvae2.models.pixelrnn.pixelrnn import PixelRNN


def convert_theano_pixelrnn(
    checkpoint: FilePath | dict[str, Tensor],
    image_shape: Sequence[int] = (28, 28, 1),
    dtype: DTypePolicy = None,
) -> PixelCNN | PixelRNN:
    """Builds the model that computes what igul222/pixel_rnn's network of binary images computes.

    Its one output is the logit of a 1; here it stands beside a logit of 0 that is always zero.

    Args:
        checkpoint: A dict from parameter name, such as `"InputConv.Filters"`, to array, or the path
            of a `.safetensors` file with it.
        image_shape: `(height, width, 1)`. A PixelRNN's states say the height.
        dtype: Dtype policy of the model.

    Returns:
        A `PixelRNN` of diagonal BiLSTMs without residuals, or a `PixelCNN` without them.

    Raises:
        ValueError: If the checkpoint is not one of these networks, or parameters are missing or
            left over.

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.converters.convert_theano_pixelrnn({"conv.weight": 0.0})
    except ValueError as error:
        print(error)  # Expected a checkpoint with the keys …
    ```

    Reference:
        - van den Oord, Kalchbrenner, Kavukcuoglu 2016, arXiv 1601.06759;
          github.com/igul222/pixel_rnn.
    """
    first, head = "InputConv.Filters", "OutputConv1.Filters"
    state = StateDict(checkpoint, required=[first, head])
    units, _, size, _ = state.shape(first, 4)
    lstms = state.numbers(r"LSTM(\d+)\.")
    convs = state.numbers(r"PixelCNNConv(\d+)\.")
    head_units = state.shape(head, 4)[0]
    if bool(lstms) == bool(convs):
        raise ValueError(
            "Expected layers LSTM1, ... or PixelCNNConv0, ... "
            f"Received: {lstms} of the first, {convs} of the second kind"
        )
    state.require({first: (units, 1, size, size), head: (head_units, units, 1, 1)})
    model: PixelCNN | PixelRNN
    if lstms:
        model = PixelRNN(
            image_shape,
            "diagonal_bilstm",
            hidden_units=units,
            num_layers=lstms,
            first_kernel_size=size,
            residual=False,
            row_states=True,
            head_units=head_units,
            levels=2,
            centre_inputs=False,
            dtype=dtype,
        )
    else:
        kernel = state.shape("PixelCNNConv0.Filters", 4)[2]
        model = PixelCNN(
            image_shape,
            hidden_units=units,
            num_layers=convs,
            kernel_size=kernel,
            first_kernel_size=size,
            residual=False,
            head_units=head_units,
            levels=2,
            centre_inputs=False,
            dtype=dtype,
        )

    def conv(layer, key):
        kernel = state.take(f"{key}.Filters").transpose(2, 3, 1, 0)  # (rows, columns, in, out)
        # Rows below the centre are not stored.
        layer.kernel.assign(kernel[: layer.kernel.shape[0]])
        layer.bias.assign(state.take(f"{key}.Biases"))

    conv(model.get_layer("first").conv, "InputConv")
    for i in range(lstms):
        layer = model.get_layer(f"layer_{i}")
        for own, theirs in (("left", "Forward"), ("right", "Backward")):
            key = f"LSTM{i + 1}.{theirs}"
            conv(layer._part(own, "input"), f"{key}.InputToState")
            taps = state.take(f"{key}.StateToState.Filters", (4 * units, units, 2, 1))
            layer._part(own, "states").assign(taps[..., 0].transpose(2, 1, 0))
            for variable, name in zip(layer._part(own, "initial"), ("h0", "c0")):
                variable.assign(state.take(f"{key}.{name}", variable.shape))
    for i in range(convs):
        conv(model.get_layer(f"layer_{i}").conv, f"PixelCNNConv{i}")
    *hidden, logits = model.get_layer("head").convs
    for i, layer in enumerate(hidden):
        conv(layer, f"OutputConv{i + 1}")
    kernel = state.take("OutputConv3.Filters", (1, head_units, 1, 1))[0, :, 0, 0]
    bias = state.take("OutputConv3.Biases", (1,))
    logits.kernel.assign(np.stack([0 * kernel, kernel], axis=-1)[None, None])
    logits.bias.assign(np.concatenate([0 * bias, bias]))
    state.require_empty()
    return model
