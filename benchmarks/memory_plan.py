"""Memory of a training step of the paper's models, and the devices that it needs.

    pip install -e '.[jax]'
    python benchmarks/memory_plan.py
    python benchmarks/memory_plan.py --presets=pixelsnail_imagenet_256_top --device_gib=40
    python benchmarks/memory_plan.py --check --presets=pixelsnail_clothing_64_top --batch_size=8

Nothing is computed and no weight exists: JAX traces the step from shapes. `state` is float32
weights, gradients, Adam's two moments and the average: 20 bytes for each parameter that is trained.
`kept` is what JAX's differentiation keeps from the forward for the backward pass, each array once,
and with gradient checkpointing one causal block more, which is computed again. What a step needs
besides for a moment, and what the compiler saves by fusing, is not counted: `--check` compares with
XLA's plan of the compiled step and with the peak of the process, for a preset that fits here.

`devices` is the smallest mesh, batch x model, on which no device exceeds `--device_gib` with 1.5
times the kept bytes. The model axis splits weights as `PixelSnailPrior.get_layout_map` says and, of
what is kept, the inner channels of residual blocks; the batch axis splits the batch.
"""

import dataclasses
import itertools
import json
import math

import measure
import tqdm
from absl import app, flags

# Of the paper, appendix A; those of FFHQ and of the bottom level of ImageNet are from memory.
BATCHES = {
    "vqvae2_imagenet_256": 128,
    "vqvae2_ffhq_1024": 128,
    "pixelsnail_imagenet_256_top": 1024,
    "pixelsnail_imagenet_256_bottom": 512,
    "pixelsnail_ffhq_1024_top": 1024,
    "pixelsnail_ffhq_1024_middle": 512,
    "pixelsnail_ffhq_1024_bottom": 256,
}
SPLITS = (1, 2, 4, 8)
# Of --check: XLA needed 1.3 times what is kept without attention, 1.5 times with it.
MARGIN = 1.5
EXAMPLES = 7  # traced at a time: an axis of this size is the batch

FLAGS = flags.FLAGS
flags.DEFINE_list("presets", list(BATCHES), "Names of presets.")
flags.DEFINE_integer("batch_size", None, "Examples a step, the paper's by default.", lower_bound=1)
flags.DEFINE_float("device_gib", 80.0, "Memory of a device.", lower_bound=0.0)
flags.DEFINE_list("dtypes", ["float32", "mixed_bfloat16"], "Dtype policies.")
flags.DEFINE_bool("check", False, "Compare with a step that is compiled and run here, in float32.")
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")


@dataclasses.dataclass
class Kept:
    """Bytes kept for the backward pass: whatever the batch, and for each example."""

    fixed: float
    example: float

    def __add__(self, other):
        return Kept(self.fixed + other.fixed, self.example + other.example)

    def __mul__(self, factor):
        return Kept(self.fixed * factor, self.example * factor)


def build(name, **changes):
    """The model of a preset, with random weights."""
    import keras_vqvae2

    models = (keras_vqvae2.VQVAE2, keras_vqvae2.PixelSnailPrior)
    (model_class,) = [m for m in models if name in m.presets]
    return model_class.from_preset(name, load_weights=False, **changes)


def build_shapes(name, **changes):
    """The model of a preset, with weights that have shapes and no values."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        model = build(name, **changes)
    keras.backend.clear_session()
    return model


def example_shape(model, tensor):
    """Shape of one example of an input. `VQVAE2` takes images of any size."""
    return model.image_shape if None in tensor.shape[1:] else tensor.shape[1:]


def kept_by_backward(model):
    """Traces a step. Arrays that are kept under two names count once, weights themselves not."""
    import jax
    import keras
    from jax.extend.core import Literal

    def shape_of(x, shape=None):
        return jax.ShapeDtypeStruct(x.shape if shape is None else shape, x.dtype)

    def loss(trainable, others, x):
        mapping = [*zip(model.trainable_variables, trainable)]
        mapping += zip(model.non_trainable_variables, others)
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
            outputs = model.step_outputs(x, training=True)
            return model.compute_loss(x, None, outputs, None, training=True)

    variables = [
        [shape_of(v) for v in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]
    inputs = keras.tree.map_structure(
        lambda x: shape_of(x, (EXAMPLES, *example_shape(model, x))), model.input
    )
    trace = jax.make_jaxpr(lambda t, n, x: jax.vjp(lambda t: loss(t, n, x), t))
    jaxpr = trace(*variables, inputs).jaxpr
    given = {id(var) for var in jaxpr.invars}
    kept = {id(v): v.aval for v in jaxpr.outvars if not isinstance(v, Literal)}
    total = Kept(0, 0)
    for array in (kept[key] for key in kept if key not in given):
        size = math.prod(array.shape) * array.dtype.itemsize
        a_batch = EXAMPLES in array.shape
        total += Kept(0, size / EXAMPLES) if a_batch else Kept(size, 0)
    return total


class Plan:
    """Memory of the training step of one preset, under one dtype policy."""

    def __init__(self, name, dtype):
        self.name, self.dtype = name, dtype
        model = build_shapes(name)
        self.parameters = model.count_params()
        self.trained = sum(math.prod(v.shape) for v in model.trainable_variables)
        self.is_prior = hasattr(model, "get_layout_map")
        self.splits = SPLITS if self.is_prior else (1,)
        self.whole = self.trained
        if self.is_prior:
            self.blocks = model.num_blocks
            self.whole = unsplit_parameters(model)
            self.units = {
                "residual_units": model.residual_units,
                "condition_residual_units": model.condition_residual_units or model.residual_units,
            }
        self._traced = {}

    def state(self, split):
        """Bytes of weights, gradients and optimizer on each of `split` devices."""
        trained = self.whole + (self.trained - self.whole) / split
        return 4 * (5 * trained + self.parameters - self.trained)

    def _trace(self, split, checkpointing):
        if (split, checkpointing) not in self._traced:
            changes = {"dtype": self.dtype}
            if self.is_prior:
                # To one of its devices a prior looks as if its residual blocks were narrower.
                changes |= {name: units // split for name, units in self.units.items()}
                changes["gradient_checkpointing"] = checkpointing
            self._traced[split, checkpointing] = kept_by_backward(
                build_shapes(self.name, **changes)
            )
        return self._traced[split, checkpointing]

    def kept(self, split, checkpointing):
        """What one of `split` devices keeps: a part that is split, and a part that is not."""
        if not checkpointing:
            return self._split(split, False)
        kept = self._split(split, True)
        again = self._split(split, False) + kept * -1
        return kept + again * (1 / self.blocks)

    def _split(self, split, checkpointing):
        # Part of it does not depend on the split and part is divided by it: two traces tell both.
        one = self._trace(1, checkpointing)
        if split == 1:
            return one
        whole = (self._trace(2, checkpointing) * 2) + one * -1
        return whole + (one + whole * -1) * (1 / split)

    def step(self, batch_size, split, checkpointing):
        """Bytes on each of `split` devices: the state, and what is kept."""
        kept = self.kept(split, checkpointing)
        return self.state(split), kept.fixed + kept.example * batch_size

    def mesh(self, batch_size, checkpointing, device_bytes):
        """The smallest mesh that fits, of two the one with more batches; None if there is none."""
        replicas = [2**i for i in range(int(math.log2(batch_size)) + 1)]
        meshes = sorted(itertools.product(replicas, self.splits), key=lambda m: (m[0] * m[1], m[1]))
        for data, split in meshes:
            state, kept = self.step(math.ceil(batch_size / data), split, checkpointing)
            if state + MARGIN * kept <= device_bytes:
                return data, split
        return None


def unsplit_parameters(prior):
    """Parameters that are whole on each device under `get_layout_map`."""
    import keras

    mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
    layouts = prior.get_layout_map(mesh)
    return sum(math.prod(v.shape) for v in prior.trainable_variables if not layouts[v.path])


def gib(size):
    return f"{size / measure.GIB:.3g}"


def plan_rows(name):
    rows = []
    batch = FLAGS.batch_size or BATCHES.get(name, 1)
    for dtype in FLAGS.dtypes:
        plan = Plan(name, dtype)
        for checkpointing in (False, True) if plan.is_prior else (False,):
            kept = plan.kept(1, checkpointing)
            mesh = plan.mesh(batch, checkpointing, FLAGS.device_gib * measure.GIB)
            devices = "none" if mesh is None else f"{math.prod(mesh)} ({mesh[0]} x {mesh[1]})"
            row = [name, plan.parameters, gib(plan.state(1)), dtype, checkpointing]
            row += [gib(kept.fixed), gib(kept.example), batch]
            rows.append([*row, gib(sum(plan.step(batch, 1, checkpointing))), devices])
    return rows


def measure_case(name, batch_size, checkpointing):
    """Runs in a process of its own. Bytes of a step: predicted, XLA's plan, and the peak."""
    import jax
    import keras
    import numpy as np

    changes = {"gradient_checkpointing": checkpointing} if name.startswith("pixelsnail") else {}
    plan = Plan(name, "float32")
    predicted = sum(plan.step(batch_size, 1, checkpointing))
    model = build(name, **changes)
    model.compile(optimizer=keras.optimizers.Adam(use_ema=True))
    model.optimizer.build(model.trainable_variables)
    x = keras.tree.map_structure(
        lambda x: np.zeros((batch_size, *example_shape(model, x)), x.dtype), model.input
    )
    model.train_on_batch(x)  # builds the metrics
    groups = (model.trainable_variables, model.non_trainable_variables)
    groups += (model.optimizer.variables, model.metrics_variables)
    state = [[jax.numpy.array(v.value) for v in group] for group in groups]
    step = jax.jit(model.train_step, donate_argnums=0).lower(state, (x,)).compile()
    temporary = step.memory_analysis().temp_size_in_bytes
    held = plan.state(1) - 4 * plan.trained  # before the step: all but gradients

    def run():
        _, new = step(state, (x,))
        jax.block_until_ready(new)

    return {
        "predicted": predicted - held,
        "planned": temporary,
        "measured": measure.peak_extra_memory(run),
    }


def check_rows(name):
    rows = []
    for checkpointing in (False, True) if name.startswith("pixelsnail") else (False,):
        case = {
            "name": name,
            "batch_size": FLAGS.batch_size or BATCHES.get(name, 1),
            "checkpointing": checkpointing,
        }
        result = measure.run_case(__file__, case, "jax", measure.available_memory())
        row = list(case.values())
        if "error" in result:
            rows.append([*row, result["error"], "", ""])
            continue
        sizes = [f"{result[key] / measure.MIB:.0f}" for key in ("predicted", "planned", "measured")]
        rows.append([*row, *sizes])
    return rows


def main(_):
    if FLAGS.case:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    if FLAGS.check:
        columns = ["preset", "batch", "checkpointing", "predicted MiB", "XLA MiB", "measured MiB"]
        make_rows = check_rows
    else:
        columns = ["preset", "parameters", "state GiB", "dtype", "checkpointing", "kept GiB"]
        columns += ["kept GiB an example", "batch", "one device GiB", "devices"]
        make_rows = plan_rows
    rows = [row for name in tqdm.tqdm(FLAGS.presets) for row in make_rows(name)]
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
