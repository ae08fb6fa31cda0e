"""PyTorch's own file format; the one use of torch that does not depend on the Keras backend."""

import torch


def load_tensors(path):
    """What `torch.save` wrote to `path`, tensors as NumPy arrays; code in it is refused."""
    return _to_numpy(torch.load(path, map_location="cpu", weights_only=True))


def _to_numpy(value):
    if isinstance(value, dict):
        return {key: _to_numpy(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        # NumPy has no bfloat16.
        return value.float().numpy() if value.is_floating_point() else value.numpy()
    return value
