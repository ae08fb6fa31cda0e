"""Seconds until a new user sees invented images: import, loading of a preset, 16 images.

    pip install -e '.[jax,torch]'
    python benchmarks/first_images.py --preset=clothing_64

Each backend runs in a process of its own. `first` is the first call of `generate`, compilation
included, `again` the second.
"""

import json

import measure
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", "clothing_64", "HierarchicalImageGenerator preset.")
flags.DEFINE_integer("images", 16, "Images of a call.", lower_bound=1)
flags.DEFINE_list("backends", ["tensorflow", "jax", "torch"], "Which of tensorflow, jax, torch.")
flags.DEFINE_enum("clock", "wall", list(measure.CLOCKS), measure.CLOCK_HELP)
flags.DEFINE_float("memory_limit_gib", 12.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")


def measure_case(preset, images, clock):
    """Runs in a process of its own. Returns the seconds of each part."""
    now = measure.CLOCKS[clock]
    times = [now()]
    import keras_vqvae2

    times.append(now())
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(preset)
    times.append(now())
    for seed in range(2):
        generator.generate(images, seed=seed, verbose=0)
        times.append(now())
    names = ["import", "load", "first", "again"]
    return {name: end - start for name, start, end in zip(names, times, times[1:])}


def main(_):
    if FLAGS.case:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    rows = []
    for backend in FLAGS.backends:
        case = {"preset": FLAGS.preset, "images": FLAGS.images, "clock": FLAGS.clock}
        limit = FLAGS.memory_limit_gib * measure.GIB
        result = measure.run_case(__file__, case, backend, limit)
        if "error" in result:
            rows.append([FLAGS.preset, FLAGS.images, backend, result["error"], "", "", ""])
        else:
            cells = [f"{seconds:.1f}" for seconds in result.values()]
            rows.append([FLAGS.preset, FLAGS.images, backend, *cells])
    columns = ["preset", "images", "backend", "import", "load", "first", "again"]
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
