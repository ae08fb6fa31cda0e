"""The most used PyTorch port of VQ-VAE-2 and keras_vqvae2: seconds for the same work.

    git clone https://github.com/rosinality/vq-vae-2-pytorch port
    pip install -e '.[jax,torch]'
    python benchmarks/pytorch_port.py --port=port

Both have the port's default sizes, and random images and codes. Each case runs in a process of its
own. `times faster` is the port's seconds over the row's.

- `stage 1`: a training step on `--images` images of 256x256: the port's model with its loss and
  Adam, without its data loader; here `fit` as users call it, metrics and guard included.
- `prior`: a training step of the top prior (85 M parameters) on `--maps` maps of 32x32, likewise.
- `draw`: one image's codes, top 32x32 and bottom 64x64 given the top. The port's loop is a forward
  pass over the rows so far for each position: timed for --naive_rows numbers of rows spread over
  the map and integrated by the trapezoidal rule. Here it is a whole `generate`, after a warm-up.
"""

import json
import math
import statistics
import sys
from pathlib import Path

import measure
import numpy as np
import port_sizes
from absl import app, flags

HERE = Path(__file__).parent
# What the example scripts use: the fastest of each backend on CPU.
JIT_COMPILE = {
    "stage 1": {"tensorflow": False, "jax": True, "torch": False},
    "prior": {"tensorflow": True, "jax": True, "torch": False},
}
WORK = ["stage 1", "prior", "draw top", "draw bottom"]

FLAGS = flags.FLAGS
flags.DEFINE_string("port", None, "Clone of the port; without it only our rows are measured.")
flags.DEFINE_list("work", WORK, f"Which of {', '.join(WORK)}.")
flags.DEFINE_list("backends", ["tensorflow", "jax", "torch"], "Which of tensorflow, jax and torch.")
flags.DEFINE_integer("images", 4, "Images a step of stage 1.", lower_bound=1)
flags.DEFINE_integer("maps", 2, "Maps a step of the prior.", lower_bound=1)
flags.DEFINE_integer("steps", 3, "Timed steps, of which the median counts.", lower_bound=1)
flags.DEFINE_integer("naive_rows", 4, "Sizes at which the port's loop is timed.", lower_bound=2)
flags.DEFINE_bool("small", False, "Sizes that say nothing, to try the script.")
flags.DEFINE_float("memory_limit_gib", 18.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")

# === The port ===


def port_pixelsnail(level):
    from pixelsnail import PixelSNAIL

    sizes = {"channel": 256, "kernel_size": 5, "n_block": 4, "n_res_block": 4, "res_channel": 256}
    if level == "top":
        return PixelSNAIL([32, 32], 512, **sizes)
    conditions = {"n_cond_res_block": 3, "cond_res_channel": 256}
    return PixelSNAIL([64, 64], 512, attention=False, **sizes, **conditions)


def train_port(model, loss, steps):
    """Median seconds of a step, after one of warm-up."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)

    def step():
        model.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.item()

    step()
    return measure.median_seconds(step, steps)


def port_seconds(work, count, steps, naive_rows, port):
    import torch

    sys.path.insert(0, port)
    torch.manual_seed(0)
    if work == "stage 1":
        from vqvae import VQVAE

        model, images = VQVAE(), torch.rand(count, 3, 256, 256) * 2 - 1

        def loss():
            reconstructions, latent_loss = model(images)
            error = torch.nn.functional.mse_loss(reconstructions, images)
            return error + 0.25 * latent_loss.mean()

        return train_port(model, loss, steps)
    if work == "prior":
        model, codes = port_pixelsnail("top"), torch.randint(512, (count, 32, 32))
        return train_port(
            model, lambda: torch.nn.functional.cross_entropy(model(codes)[0], codes), steps
        )
    return port_draw_seconds(work.removeprefix("draw "), naive_rows)


def port_draw_seconds(level, naive_rows):
    import torch

    model, size = port_pixelsnail(level).eval(), 32 if level == "top" else 64
    codes = torch.zeros(1, size, size, dtype=torch.int64)
    condition = None if level == "top" else torch.zeros(1, size // 2, size // 2, dtype=torch.int64)
    sizes = sorted({round(n) for n in np.linspace(1, size, naive_rows)})
    cache, times = {}, []  # of the conditioning stack, which the port runs once

    def position(rows):
        logits, _ = model(codes[:, :rows], condition=condition, cache=cache)
        return torch.multinomial(torch.softmax(logits[:, :, rows - 1, 0], 1), 1)

    with torch.no_grad():
        for rows in sizes:
            position(rows)
            times.append(measure.median_seconds(lambda rows=rows: position(rows), 3))
    return size * float(np.interp(range(1, size + 1), sizes, times).sum())


# === Ours ===


def our_prior_seconds(count, steps, small):
    import keras

    keras.utils.set_random_seed(0)
    prior = port_sizes.port_prior("top", 8 if small else 32, small)
    jit_compile = JIT_COMPILE["prior"][keras.backend.backend()]
    prior.compile(optimizer=keras.optimizers.Adam(3e-4), jit_compile=jit_compile)
    codes = np.random.default_rng(0).integers(512, size=(count * (2 + steps), *prior.code_shape))
    timer = measure.step_timer()
    prior.fit({"top": codes}, batch_size=count, callbacks=[timer], verbose=0)
    return statistics.median(np.diff(timer.ends)[1:])


def our_case(work, backend):
    """The script and the case that measure a piece of work here."""
    if work == "stage 1":
        size = 64 if FLAGS.small else 256
        case = {"size": size, "batch": FLAGS.images, "policy": "float32", "warmup_steps": 2}
        case |= {"jit_compile": JIT_COMPILE[work][backend], "steps": FLAGS.steps}
        return HERE / "train_step.py", case
    if work == "prior":
        return __file__, {"count": FLAGS.maps, "steps": FLAGS.steps, "small": FLAGS.small}
    level = work.removeprefix("draw ")
    return HERE / "decode.py", {"level": level, "batch": 1, "naive_rows": 0, "small": FLAGS.small}


# === The table ===


def table_rows(work):
    limit = FLAGS.memory_limit_gib * measure.GIB
    port = None
    if FLAGS.port is not None:
        case = {"work": work, "count": FLAGS.images if work == "stage 1" else FLAGS.maps}
        case |= {"steps": FLAGS.steps, "naive_rows": FLAGS.naive_rows}
        case["port"] = str(Path(FLAGS.port).resolve())
        port = measure.run_case(__file__, case, "torch", limit)
        yield row(work, "the port", "torch", port, port)
    for backend in FLAGS.backends:
        result = measure.run_case(*our_case(work, backend), backend, limit)
        yield row(work, "keras_vqvae2", backend, result, port)


def row(work, implementation, backend, result, port):
    if "error" in result:
        return [work, implementation, backend, result["error"], ""]
    ratio = "" if port is None or "error" in port else port["seconds"] / result["seconds"]
    seconds = result["seconds"]
    digits = 3 if seconds < 100 else math.ceil(math.log10(seconds))
    return [work, implementation, backend, f"{seconds:.{digits}g}", ratio and f"{ratio:.3g}"]


def main(_):
    if FLAGS.case:
        case = json.loads(FLAGS.case)
        seconds = port_seconds(**case) if "port" in case else our_prior_seconds(**case)
        measure.report({"seconds": seconds})
        return
    if FLAGS.port is not None and not (Path(FLAGS.port) / "pixelsnail.py").is_file():
        sys.exit(f"pytorch_port: Expected a clone of the port. Received: --port={FLAGS.port}")
    columns = ["work", "implementation", "backend", "seconds", "times faster"]
    rows = []
    for work in FLAGS.work:
        for cells in table_rows(work):
            print(" | ".join(cells), file=sys.stderr, flush=True)
            rows.append(cells)
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
