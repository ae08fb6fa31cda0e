"""Images a second that the input pipeline delivers, with nothing that trains on them.

    pip install -e '.[grain,benchmarks]'
    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --data=/data/imagenette_160/train --training=300

Measured is `images_from_folder` as `examples/train_vqvae2.py` calls it: JPEG files of 160 pixels,
decoded, cropped at random to 128x128, mirrored at random, shuffled, in batches. Each case runs in
a process of its own that may use `cores` of the machine: tf.data and Grain with threads, or Grain
with as many worker processes (`grain.IterDataset.mp_prefetch`). The first batches are left out.

`images/s` is what came out of the clock. `CPU ms an image` counts only the time that the process
and its workers ran, so it says the same on a busy machine; its inverse is `images/s a core`.
`cores for training` is how many cores keep up with a model that trains on `--training` images a
second (see benchmarks/train_step.py).
"""

import itertools
import json
import os
import tempfile
import time
from pathlib import Path

import measure
from absl import app, flags

ENGINES = ("tf.data", "grain", "grain processes")

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Folder of images; by default photographs that are made for it.")
flags.DEFINE_list("engines", list(ENGINES), f"Which of {', '.join(ENGINES)}.")
flags.DEFINE_list("cores", ["1", "2"], "How many cores a case may use.")
flags.DEFINE_integer("images", 4000, "Images that are timed.", lower_bound=1)
flags.DEFINE_integer("batch", 32, "Images a batch.", lower_bound=1)
flags.DEFINE_integer("size", 128, "Height and width of the images that come out.", lower_bound=1)
flags.DEFINE_bool("augment", False, "Whether keras-cv changes brightness and hue of the batches.")
flags.DEFINE_float("training", 100.0, "Images a second that a model trains on.", lower_bound=0.0)
flags.DEFINE_enum("backend", "tensorflow", ["tensorflow", "jax", "torch"], "KERAS_BACKEND.")
flags.DEFINE_float("memory_limit_gib", 8.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")


def cpu_seconds():
    """Of this process and its workers."""
    import psutil

    process = psutil.Process()
    times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def measure_case(data, engine, cores, images, batch, size, augment):
    """Runs in a process of its own. Returns wall and CPU seconds of `count` images."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import keras_vqvae2

    layers = None
    if augment:
        import keras_cv

        layers = [
            keras_cv.layers.RandomBrightness(0.2, value_range=(0, 1)),
            keras_cv.layers.RandomHue(0.1, value_range=(0, 1)),
        ]
    dataset = keras_vqvae2.data.images_from_folder(
        data,
        size,
        batch,
        engine=engine.split()[0],
        shuffle=True,
        repeat=True,
        resize=False,
        crop="random",
        flip=True,
        augment=layers,
    )
    if engine == "grain processes":
        import grain

        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=cores))
    steps = -(-images // batch)
    batches = iter(dataset)
    # What is read ahead while nobody takes it would count for nothing.
    for _ in itertools.islice(batches, 1 + steps // 10):
        pass
    wall, cpu = time.perf_counter(), cpu_seconds()
    for _ in itertools.islice(batches, steps):
        pass
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return {"count": steps * batch, "wall": wall, "cpu": cpu}


def make_photographs(folder, size=160):
    """64 JPEG files whose shorter side is `size`."""
    from PIL import Image

    from keras_vqvae2.data import sample_photographs

    photographs = sample_photographs((size, size * 4 // 3))
    for i in range(64):
        Image.fromarray(photographs[i % 8]).save(Path(folder) / f"{i:02}.jpg", quality=90)


def table_row(data, engine, cores):
    case = {"data": data, "engine": engine, "cores": cores, "images": FLAGS.images}
    case |= {"batch": FLAGS.batch, "size": FLAGS.size, "augment": FLAGS.augment}
    limit = FLAGS.memory_limit_gib * measure.GIB
    result = measure.run_case(__file__, case, FLAGS.backend, limit)
    if "error" in result:
        return [engine, cores, result["error"], "", "", ""]
    per_image = result["cpu"] / result["count"]
    rates = [result["count"] / result["wall"], 1 / per_image]
    row = [engine, cores, f"{rates[0]:.0f}", f"{1000 * per_image:.2f}", f"{rates[1]:.0f}"]
    return [*row, f"{FLAGS.training * per_image:.2f}"]


def main(_):
    if FLAGS.case:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if FLAGS.data is None:
            make_photographs(folder)
        rows = [
            table_row(FLAGS.data or folder, engine, int(cores))
            for cores in FLAGS.cores
            for engine in FLAGS.engines
        ]
    columns = ["engine", "cores", "images/s", "CPU ms an image", "images/s a core"]
    print(measure.markdown_table([*columns, "cores for training"], rows), end="\n\n")
    print(f"{measure.environment()} Load at the end: {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    app.run(main)
