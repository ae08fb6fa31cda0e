"""Time and memory of one training step of vector quantizers.

    pip install -e '.[jax,torch,benchmarks]'
    python benchmarks/quantizer.py
    python benchmarks/quantizer.py --vectors=32768 --codes=512 --backends=jax --repeats=1
    python benchmarks/quantizer.py --quantizers=fsq,lfq,simvq,residual,cosine,bsq,ibq

Measured is one forward pass in training, without gradients: the nearest of the codes for each
vector, the moving averages' update, the commitment loss and the straight-through output. Rows:

- `keras_vqvae2`: the row's quantizer; in a `tf.function` on TensorFlow, under `jax.jit` with its
  state donated on JAX, eager on PyTorch;
- `vector-quantize-pytorch`: the package's own with the same settings, where it has one;
- `one-hot`: the textbook's, with the matrix of all distances and the one-hot matrix of the choices.

`--quantizers` says of which: `ema` is `VectorQuantizerEMA`, `cosine` the same on the unit sphere,
`residual` four of it in a row; `fsq`, `lfq`, `bsq`, `simvq` and `ibq` have their defaults.
FSQ, LFQ and BSQ take the first numbers of each vector, as many as they need for so many codes: a
power of two for the latter two, one of `FSQ_LEVELS` for the first.

Those with averages have decay 0.99, commitment cost 0.25, codes that are vectors of the batch, no
start from data and no restart of dead codes. Each case runs in a process of its own: on a few
vectors, so that libraries start; compiled; once for its memory; then `--repeats` times for the
median time.

`extra MiB` is the peak of the resident set during the first step minus its size before, with the
vectors in memory already. (In later steps the memory that allocators keep would hide what a step
needs.) The output, as large as the vectors, is part of it. `ratio` is to the fastest row of
`keras_vqvae2` with as many codes: below 1 is faster than ours. A case whose matrices cannot fit in
`--memory_limit_gib`, or in the memory that is free, is not run; one that grows beyond is ended.
"""

import json

import measure
import numpy as np
from absl import app, flags

BACKENDS = ("tensorflow", "jax", "torch")
DECAY, COMMITMENT_COST = 0.99, 0.25
DEPTH = 4  # of the residual quantizer
# Levels for about as many codes: the paper's, and those of eight for powers of eight.
FSQ_LEVELS = {
    256: [8, 6, 5],
    512: [8, 8, 8],
    1024: [8, 5, 5, 5],
    4096: [7, 5, 5, 5, 5],
    16_384: [8, 8, 8, 6, 5],
    65_536: [8, 8, 8, 5, 5, 5],
    262_144: [8] * 6,
}
SMALL = 1024  # vectors of the step before the first that counts
# For each row of the table its backends, and how many bytes a step holds for each vector and code.
# These are measured, with 2**17 vectors and 512 codes.
IMPLEMENTATIONS = {
    "keras_vqvae2": dict.fromkeys(BACKENDS, 0),
    "vector-quantize-pytorch": {"torch": 16},
    "one-hot": {"tensorflow": 10, "jax": 4, "torch": 9},
}

QUANTIZERS = ("ema", "cosine", "residual", "fsq", "lfq", "bsq", "simvq", "ibq")
# What of them a row has: the package has no BSQ by its paper and no IBQ.
THEIRS = ("ema", "cosine", "residual", "fsq", "lfq", "simvq")

FLAGS = flags.FLAGS
flags.DEFINE_list("quantizers", ["ema"], f"Which of {', '.join(QUANTIZERS)}.")
flags.DEFINE_integer("vectors", 524_288, "Vectors of the batch.", lower_bound=1)
flags.DEFINE_integer("dim", 64, "Width of a vector.", lower_bound=1)
flags.DEFINE_list("codes", ["512", "16384"], "Numbers of codes.")
flags.DEFINE_list("backends", list(BACKENDS), "Which of tensorflow, jax and torch.")
flags.DEFINE_list("implementations", list(IMPLEMENTATIONS), "Which rows.")
flags.DEFINE_integer("repeats", 5, "Timed steps, of which the median counts.", lower_bound=1)
flags.DEFINE_enum("clock", "wall", list(measure.CLOCKS), measure.CLOCK_HELP)
flags.DEFINE_float("memory_limit_gib", 8.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")


# === Implementations: each is a step, a function that returns loss, output and codes ===


def one_hot_layer(codebook):
    """The textbook's quantizer in `keras.ops`."""
    import keras
    from keras import ops

    class OneHotQuantizer(keras.layers.Layer):
        def build(self, input_shape):
            self.counts = self.add_weight(shape=(len(codebook),), trainable=False, name="counts")
            self.sums = self.add_weight(shape=codebook.shape, trainable=False, name="sums")
            self.counts.assign(np.ones(len(codebook), "float32"))
            self.sums.assign(codebook)

        def call(self, z, training=None):
            codes = self.sums / self.counts[:, None]  # (K, D)
            distances = (
                ops.sum(ops.square(z), axis=1, keepdims=True)
                - 2.0 * ops.matmul(z, ops.transpose(codes))
                + ops.sum(ops.square(codes), axis=1)
            )  # (N, K)
            indices = ops.argmin(distances, axis=1)  # (N,)
            chosen = ops.equal(indices[:, None], ops.arange(len(codebook), dtype=indices.dtype))
            chosen = ops.cast(chosen, "float32")  # (N, K)
            quantized = ops.matmul(chosen, codes)  # (N, D)
            self.add_loss(COMMITMENT_COST * ops.mean(ops.square(z - quantized)))
            sums = ops.matmul(ops.transpose(chosen), z)  # (K, D)
            self.counts.assign(DECAY * self.counts + (1.0 - DECAY) * ops.sum(chosen, axis=0))
            self.sums.assign(DECAY * self.sums + (1.0 - DECAY) * sums)
            return z + ops.stop_gradient(quantized - z), indices

    return OneHotQuantizer()


def our_layer(quantizer, codebook):
    """A layer of the package, built, with the codes of `codebook` where it has any of its own."""
    from keras_vqvae2 import layers

    codes, dim = codebook.shape
    averages = {
        "commitment_cost": COMMITMENT_COST,
        "decay": DECAY,
        "data_initialization": False,
        "restart_threshold": 0.0,
    }
    similarity = "cosine" if quantizer == "cosine" else "euclidean"
    ema = layers.VectorQuantizerEMA(codes, dim, similarity=similarity, **averages)
    if quantizer in ("ema", "cosine"):
        ema.set_codebook(codebook)
        return ema
    layer = {
        "residual": lambda: layers.ResidualVectorQuantizer(ema, DEPTH),
        "fsq": lambda: layers.FiniteScalarQuantizer(FSQ_LEVELS[codes]),
        "lfq": lambda: layers.LookupFreeQuantizer(bits_of(codes)),
        "bsq": lambda: layers.BinarySphericalQuantizer(bits_of(codes)),
        "simvq": lambda: layers.SimVectorQuantizer(codes, dim, use_bias=False),
        "ibq": lambda: layers.IndexBackpropagationQuantizer(codes, dim),
    }[quantizer]()
    layer.build((None, layer.embedding_dim))
    if quantizer == "residual":
        for member in layer.quantizers[0]:
            member.set_codebook(codebook)
    return layer


def bits_of(codes):
    return codes.bit_length() - 1


def keras_step(layer, vectors):
    """A training step of a Keras layer, compiled as its backend's `fit` does, and not yet run."""
    import keras

    backend = keras.backend.backend()
    if not layer.built:
        layer.build(vectors.shape)
    if backend == "tensorflow":
        import tensorflow as tf

        inputs = tf.constant(vectors)

        @tf.function
        def graph(inputs):
            quantized, indices = layer(inputs, training=True)
            return sum(layer.losses), quantized, indices

        compiled = graph.get_concrete_function(inputs)
        return lambda: compiled(inputs)
    if backend == "jax":
        import jax

        def pure(state, inputs):
            (quantized, indices), state, losses = layer.stateless_call(
                trainable, state, inputs, training=True, return_losses=True
            )
            return state, (sum(losses), quantized, indices)

        inputs = jax.device_put(vectors)
        trainable = [variable.value for variable in layer.trainable_variables]
        state = [variable.value for variable in layer.non_trainable_variables]
        compiled = jax.jit(pure, donate_argnums=0).lower(state, inputs).compile()

        def step():
            nonlocal state
            state, outputs = jax.block_until_ready(compiled(state, inputs))
            return outputs

        return step
    import torch

    inputs = torch.from_numpy(vectors)

    def step():
        with torch.no_grad():
            quantized, indices = layer(inputs, training=True)
            return sum(layer.losses), quantized, indices

    return step


def package_step(quantizer, vectors, codebook):
    """A training step of `vector-quantize-pytorch`."""
    import torch
    import vector_quantize_pytorch as package

    codes, dim = codebook.shape
    averages = {
        "decay": DECAY,
        "commitment_weight": COMMITMENT_COST,
        "kmeans_init": False,
        "threshold_ema_dead_code": 0,
        "rotation_trick": False,
    }
    bits = {"dim": bits_of(codes), "codebook_size": codes}
    module = {
        "ema": lambda: package.VectorQuantize(dim, codes, **averages),
        "cosine": lambda: package.VectorQuantize(dim, codes, use_cosine_sim=True, **averages),
        "residual": lambda: package.ResidualVQ(
            dim=dim, codebook_size=codes, num_quantizers=DEPTH, **averages
        ),
        "fsq": lambda: package.FSQ(FSQ_LEVELS[codes]),
        "lfq": lambda: package.LFQ(
            entropy_loss_weight=0.1, commitment_loss_weight=COMMITMENT_COST, **bits
        ),
        "simvq": lambda: package.SimVQ(dim=dim, codebook_size=codes, rotation_trick=False),
    }[quantizer]().train()
    books = [m._codebook for m in module.modules() if isinstance(m, package.VectorQuantize)]
    for book in books:
        own = torch.from_numpy(codebook)[None]  # (1, K, D)
        own = torch.nn.functional.normalize(own, dim=-1) if quantizer == "cosine" else own
        book.embed.copy_(own)
        book.embed_avg.copy_(own)
    inputs = torch.from_numpy(vectors)[None]  # (1, N, D)

    def step():
        with torch.no_grad():
            quantized, indices, *losses = module(inputs)
            return sum(loss.sum() for loss in losses), quantized, indices

    return step


def ours_step(quantizer, vectors, codebook):
    layer = our_layer(quantizer, codebook)
    return keras_step(layer, np.ascontiguousarray(vectors[:, : layer.embedding_dim]))


def theirs_step(quantizer, vectors, codebook):
    codes = len(codebook)
    widths = {"fsq": len(FSQ_LEVELS.get(codes, ())), "lfq": bits_of(codes)}
    width = widths.get(quantizer, vectors.shape[1])
    return package_step(quantizer, np.ascontiguousarray(vectors[:, :width]), codebook)


STEPS = {
    "keras_vqvae2": ours_step,
    "vector-quantize-pytorch": theirs_step,
    "one-hot": lambda _, vectors, codebook: keras_step(one_hot_layer(codebook), vectors),
}

# === Measurement ===


def measure_case(quantizer, implementation, vectors, dim, codes, repeats, clock):
    """Runs in a process of its own. Returns loss, median seconds and peak bytes of a step."""
    generator = np.random.default_rng(0)
    batch = generator.standard_normal((vectors, dim), dtype="float32")
    codebook = batch[generator.choice(vectors, codes, replace=codes > vectors)]
    make_step = STEPS[implementation]
    make_step(
        quantizer, batch[:SMALL], codebook
    )()  # libraries start, with little memory that may stay
    step = make_step(quantizer, batch, codebook)
    del batch
    losses = []
    peak = measure.peak_extra_memory(lambda: losses.append(float(step()[0])))
    seconds = measure.median_seconds(step, repeats, clock)
    return {"loss": losses[0], "bytes": peak, "seconds": seconds}


def table_rows(quantizer, codes, limit):
    """The rows of the table for one quantizer and one number of codes."""
    results = {}
    for implementation in FLAGS.implementations:
        for backend, bytes_a_score in IMPLEMENTATIONS[implementation].items():
            missing = {"vector-quantize-pytorch": THEIRS, "one-hot": ("ema",)}
            if backend not in FLAGS.backends or quantizer not in missing.get(
                implementation, QUANTIZERS
            ):
                continue
            case = {
                "quantizer": quantizer,
                "implementation": implementation,
                "vectors": FLAGS.vectors,
                "dim": FLAGS.dim,
                "codes": codes,
                "repeats": FLAGS.repeats,
                "clock": FLAGS.clock,
            }
            matrix = quantizer != "fsq"
            needs = FLAGS.vectors * codes * bytes_a_score * matrix
            result = measure.run_case(__file__, case, backend, limit, needs)
            results[implementation, backend] = result
    measured = [(name, r["seconds"]) for (name, _), r in results.items() if "seconds" in r]
    ours = [seconds for name, seconds in measured if name == "keras_vqvae2"]
    for (implementation, backend), result in results.items():
        row = [quantizer, codes, implementation, backend]
        if "error" in result:
            yield [*row, result["error"], "", "", ""]
            continue
        ratio = f"{result['seconds'] / min(ours):.2f}" if ours else ""
        extra = f"{result['bytes'] / measure.MIB:.0f}"
        yield [*row, f"{result['seconds']:.3f}", extra, ratio, f"{result['loss']:.5f}"]


def main(_):
    if FLAGS.case:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    unknown = set(FLAGS.quantizers) - set(QUANTIZERS)
    if unknown:
        raise app.UsageError(f"Expected some of {QUANTIZERS}. Received: {sorted(unknown)}")
    limit = FLAGS.memory_limit_gib * measure.GIB
    columns = [
        "quantizer",
        "codes",
        "implementation",
        "backend",
        "seconds",
        "extra MiB",
        "ratio",
        "loss",
    ]
    rows = [
        row
        for quantizer in FLAGS.quantizers
        for codes in FLAGS.codes
        for row in table_rows(quantizer, int(codes), limit)
    ]
    print(f"{FLAGS.vectors:,} float32 vectors of width {FLAGS.dim}.", end="\n\n")
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
