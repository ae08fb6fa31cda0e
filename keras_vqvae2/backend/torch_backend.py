"""PyTorch: eager steps, `torch.distributed` replicas."""

import contextlib
import os
import random

import keras
import torch
import torch.distributed

from keras_vqvae2.backend.guarded import Update, gradient_norm, keep_scale, poison, scales_loss

COMPILES_STEPS = False
SPLITS_WEIGHTS = False
# What `keras.Model.export` writes here, and the packages that it takes. Not LiteRT: litert-torch
# 0.10 hands the decoder's codes on as int64 to what takes int32.
EXPORT_FORMATS = {"onnx": ("onnxscript",)}


def export_options(format):
    return {}


def _distributed():
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def replica_count():
    return torch.distributed.get_world_size() if _distributed() else 1


def replica_index():
    return torch.distributed.get_rank() if _distributed() else 0


def replica_sum(x):
    if replica_count() == 1:
        return x
    total = x.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def process_count():
    return replica_count()


def process_index():
    return replica_index()


def start_replicas(devices, join):
    if (devices or 1) > 1:
        raise ValueError(
            "Expected one device a process: start one process a device, with "
            f"`torchrun --nproc-per-node={devices}`. Received: devices={devices}"
        )
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 and not join:
        return 1, contextlib.nullcontext
    if not _distributed():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        torch.distributed.init_process_group()
        # Weights that are drawn must be the same everywhere.
        seed = [random.getrandbits(31)]
        torch.distributed.broadcast_object_list(seed)
        keras.utils.set_random_seed(seed[0])
    return replica_count(), contextlib.nullcontext


def distribute_dataset(dataset, devices):
    return dataset


def alone():
    return contextlib.nullcontext()


def any_process(flag, model=None):
    if replica_count() == 1:
        return flag
    return bool(replica_sum(torch.tensor(float(flag), device=_device())) > 0)


def _device():
    return keras.ops.zeros(()).device


def batch_multiple():
    return 1


def split_batch(tensors):
    return tensors


def map_range(function, count):
    # Into one tensor: a list of small results between large temporaries fragments the heap.
    first = function(torch.tensor(0))
    results = first.new_empty((count, *first.shape))
    results[0] = first
    for i in range(1, count):
        results[i] = function(torch.tensor(i))
    return results


def scan(function, carry, inputs, length):
    outputs = []
    for i in range(length):
        carry, output = function(carry, keras.tree.map_structure(lambda x, i=i: x[i], inputs))
        outputs.append(output)
    return carry, keras.tree.map_structure(lambda *x: torch.stack(x), *outputs)


def variables_lock():
    return contextlib.nullcontext()  # Keras leaves variables where they are


def compile_function(function, variables):
    return torch.inference_mode()(function)


def argmax(x):
    return torch.max(x, dim=-1).indices.to(torch.int32)  # in two thirds of the time of argmax


def attention(queries, keys, values, is_causal):
    return keras.ops.dot_product_attention(queries, keys, values, scale=1.0, is_causal=is_causal)


def matmul_float32(a, b, offsets=None):
    asked = torch.get_float32_matmul_precision()
    if asked != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        # As one operation: a second matrix of scores would cost as much again.
        return torch.matmul(a, b) if offsets is None else torch.addmm(offsets, a, b)
    finally:
        torch.set_float32_matmul_precision(asked)


def segment_sum(rows, indices, num_segments):
    sums = torch.zeros((num_segments, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
    return sums.index_add_(0, indices, rows)


def sum_squared_error(a, b, chunks=8):
    pairs = zip(torch.chunk(a, chunks), torch.chunk(b, chunks))
    return sum((part - other).square_().sum() for part, other in pairs)


def sync_training_state(model):
    """Nothing to do: PyTorch updates variables in place."""


def build_optimizer(model):
    """Nothing to do: Keras builds it before the first step."""


def train_step(model, data):
    model.train_batch(*keras.utils.unpack_x_y_sample_weight(data))
    return model.own_metrics_result()


def test_step(model, data):
    model.test_batch(*keras.utils.unpack_x_y_sample_weight(data))
    return model.test_logs(model.own_metrics_result())


def guarded_update(forward, variables, optimizer, state=(), finite=True):
    before = [v.value.detach().clone() for v in state]
    loss, outputs = forward()
    scaled, values = optimizer.scale_loss(loss), [v.value for v in variables]
    # A model may have quantizers alone to train, which learn without gradients.
    gradients = torch.autograd.grad(scaled, values, allow_unused=True) if values else []
    replicas = replica_count()
    with torch.no_grad():
        gradients = [g if g is None else replica_sum(g) / replicas for g in gradients]
        finite_loss = replica_sum(torch.isfinite(loss).float()) >= replicas
        norm = gradient_norm(optimizer, gradients)
        finite = torch.isfinite(norm) & finite_loss & finite
        if scales_loss(optimizer):
            optimizer.apply(poison(gradients, finite), variables)
            keep_scale(optimizer)
        elif finite:
            optimizer.apply(gradients, variables)
        if not finite:
            for variable, old in zip(state, before):
                variable.assign(old)
    outputs = keras.tree.map_structure(torch.Tensor.detach, outputs)
    return Update(loss.detach(), outputs, norm, finite)


def gradient_with_aux(function, x, variables=()):
    x = x.detach().requires_grad_()
    with keras.StatelessScope(state_mapping=[(v, v.value.detach()) for v in variables]):
        total, aux = function(x)
    (gradient,) = torch.autograd.grad(total, x)
    return keras.tree.map_structure(torch.Tensor.detach, aux), gradient


def training_state(model, training):
    """Nothing to do: variables hold their values while Keras' loops run."""
    return contextlib.nullcontext()


def metrics_over_processes(model, result):
    """Every process must ask. The logs of single steps are those of this process."""
    if replica_count() == 1:
        # A result may be the variable's own tensor, which evaluation in between sets to zero.
        return {name: value.clone() for name, value in result().items()}
    variables = [v for metric in model.metrics for v in metric.variables]
    own = [v.value.detach().clone() for v in variables]
    totals = replica_sum(torch.cat([value.float().flatten() for value in own]))
    totals = torch.split(totals, [value.numel() for value in own])
    for variable, total in zip(variables, totals):
        variable.assign(total.reshape(variable.shape))
    # Here it is written to next.
    logs = {name: value.clone() for name, value in result().items()}
    for variable, value in zip(variables, own):
        variable.assign(value)
    return logs
