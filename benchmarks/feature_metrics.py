"""Time and memory of the metrics of feature sets, beside other packages'.

    pip install -e '.[torch,benchmarks]' scikit-learn
    pip install --no-deps prdc torch-fidelity torchmetrics lightning-utilities
    python benchmarks/feature_metrics.py
    python benchmarks/feature_metrics.py --samples=2000 --metrics=precision_recall

Two sets of `--samples` float32 features of width `--width`, of 64 hidden dimensions and rectified
as an Inception network's are, or their logits of 1,008 classes. Rows:

- `keras_vqvae2`: the function, given all features at once; `streamed`: the Keras metric, in batches
  of `--batch`;
- `torch-fidelity`: what it computes from features; `in parts`: its option `save_cpu_ram`;
- `torchmetrics`: its metric with an identity for the network, in batches of `--batch`;
- `prdc`: all four numbers, of which the row's metric is two.

Each case runs once in a process of its own, after a run on a few samples that starts the libraries.
`CPU s` is what all threads took together: it suffers less than `seconds` from other work on the
machine, and with OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1 least. `extra MiB` is the peak of the
resident set minus its size before, with the features in memory already. `ratio` is of the seconds,
to the first row of `keras_vqvae2`: above 1 is slower than ours. A case known to need more than
`--memory_limit_gib`, or than is free, is not run; one that grows beyond is ended. Each row is also
logged when it is there, since a whole table of 50,000 samples takes long.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import sys
import time
from unittest import mock

import measure
import numpy as np
from absl import app, flags

CLASSES = 1008
NEAREST_K = {"precision_recall": 3, "density_coverage": 5}

FLAGS = flags.FLAGS
flags.DEFINE_integer("samples", 50_000, "Samples of each set.", lower_bound=20)
flags.DEFINE_integer("width", 2048, "Width of the features.", lower_bound=1)
flags.DEFINE_integer("batch", 500, "Samples of a batch where they are streamed.", lower_bound=1)
flags.DEFINE_list("metrics", None, "Which metrics; all by default.")
flags.DEFINE_list("implementations", None, "Which rows; all by default.")
flags.DEFINE_float("memory_limit_gib", 8.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")


# === Implementations: functions of the two sets (or of one set's logits) that return numbers ===


def batches(features, batch):
    return (features[i : i + batch] for i in range(0, len(features), batch))


def ours(metric):
    def measure_metric(features, reference, batch):
        import keras_vqvae2

        if metric == "inception_score":
            probabilities = np.empty_like(features)
            for x, p in zip(batches(features, batch), batches(probabilities, batch)):
                p[:] = softmax(x)
            return keras_vqvae2.metrics.inception_score(probabilities)
        return getattr(keras_vqvae2.metrics, metric)(features, reference)

    return measure_metric


def ours_streamed(metric):
    def measure_metric(features, reference, batch):
        import keras_vqvae2

        names = {
            "frechet_distance": "FrechetDistance",
            "inception_score": "InceptionScore",
            "precision_recall": "PrecisionRecall",
            "density_coverage": "DensityCoverage",
        }
        streamed = getattr(keras_vqvae2.metrics, names[metric])()
        for x in batches(features, batch):
            streamed.update_state(softmax(x) if metric == "inception_score" else x)
        if metric != "inception_score":
            for x in batches(reference, batch):
                streamed.update_reference(x)
        return streamed.result()

    return measure_metric


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def import_torch_fidelity():
    """torch-fidelity imports torchvision for what is not measured: a stand-in will do."""
    names = ["torchvision"] + [f"torchvision.{n}" for n in ("transforms", "datasets", "models")]
    names += ["torchvision.transforms.functional"]
    absent = importlib.util.find_spec("torchvision") is None
    if absent:
        sys.modules.update({name: mock.MagicMock() for name in names})
    import torch_fidelity  # noqa: F401

    if absent:
        for name in names:
            del sys.modules[name]


def torch_fidelity_frechet(features, reference, batch):
    import_torch_fidelity()
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (features, reference)]
    return fid_statistics_to_metric(*statistics, verbose=False)


def torch_fidelity_inception(logits, _, batch):
    import_torch_fidelity()
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    return isc_features_to_metric(torch.from_numpy(logits), shuffle=False)


def torch_fidelity_precision(in_parts):
    def measure_metric(features, reference, batch):
        import_torch_fidelity()
        import torch
        from torch_fidelity.metric_prc import prc_features_to_metric

        return prc_features_to_metric(
            torch.from_numpy(features),
            torch.from_numpy(reference),
            prc_neighborhood=NEAREST_K["precision_recall"],
            prc_batch_size=10_000,
            save_cpu_ram=in_parts,
            verbose=False,
        )

    return measure_metric


def identity(width):
    import torch

    network = torch.nn.Identity()
    network.num_features = width
    return network


def torchmetrics_frechet(features, reference, batch):
    import_torch_fidelity()
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(identity(features.shape[1]))
    for x, real in ((features, False), (reference, True)):
        for part in batches(torch.from_numpy(x), batch):
            metric.update(part, real=real)
    return float(metric.compute())


def torchmetrics_inception(logits, _, batch):
    import_torch_fidelity()
    import torch
    from torchmetrics.image.inception import InceptionScore

    metric = InceptionScore(identity(logits.shape[1]))
    for part in batches(torch.from_numpy(logits), batch):
        metric.update(part)
    return [float(x) for x in metric.compute()]


def prdc(metric):
    def measure_metric(features, reference, batch):
        from prdc import compute_prdc

        with contextlib.redirect_stdout(io.StringIO()):
            return compute_prdc(reference, features, NEAREST_K[metric])

    return measure_metric


# For each metric its rows, and how many bytes a row holds for each pair of samples.
IMPLEMENTATIONS = {
    "frechet_distance": {
        "keras_vqvae2": (ours("frechet_distance"), 0),
        "keras_vqvae2, streamed": (ours_streamed("frechet_distance"), 0),
        "torch-fidelity": (torch_fidelity_frechet, 0),
        "torchmetrics": (torchmetrics_frechet, 0),
    },
    "inception_score": {
        "keras_vqvae2": (ours("inception_score"), 0),
        "keras_vqvae2, streamed": (ours_streamed("inception_score"), 0),
        "torch-fidelity": (torch_fidelity_inception, 0),
        "torchmetrics": (torchmetrics_inception, 0),
    },
    "precision_recall": {
        "keras_vqvae2": (ours("precision_recall"), 0),
        "keras_vqvae2, streamed": (ours_streamed("precision_recall"), 0),
        "torch-fidelity": (torch_fidelity_precision(in_parts=False), 8),
        "torch-fidelity, in parts": (torch_fidelity_precision(in_parts=True), 0),
        "prdc": (prdc("precision_recall"), 12),
    },
    "density_coverage": {
        "keras_vqvae2": (ours("density_coverage"), 0),
        "keras_vqvae2, streamed": (ours_streamed("density_coverage"), 0),
        "prdc": (prdc("density_coverage"), 12),
    },
}
PACKAGES = {
    "torch-fidelity": ("torch", "torch_fidelity"),
    "torchmetrics": ("torch", "torch_fidelity", "torchmetrics"),
    "prdc": ("sklearn", "prdc"),
}

# === Measurement ===


def make_features(samples, width, shift, seed):
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(0).standard_normal((64, width), dtype="float32") / 8
    features = np.empty((samples, width), "float32")
    for part in batches(features, 1000):
        part[:] = rng.standard_normal((len(part), 64), dtype="float32") @ directions
        part += 0.3 * rng.standard_normal(part.shape, dtype="float32") + shift
    return np.maximum(features, 0.0, out=features)


def measure_case(metric, implementation, samples, width, batch):
    """Runs in a process of its own. Returns the numbers, peak bytes, seconds and CPU seconds."""
    call, _ = IMPLEMENTATIONS[metric][implementation]
    if metric == "inception_score":
        features = 4.0 * np.random.default_rng(0).standard_normal((samples, CLASSES), "float32")
        reference = features
    else:
        features = make_features(samples, width, shift=0.05, seed=1)
        reference = make_features(samples, width, shift=0.0, seed=2)
    few = 20  # libraries start, with little memory that may stay
    call(features[:few, :16].copy(), reference[:few, :16].copy(), batch)
    results = []
    started, cpu_started = time.perf_counter(), time.process_time()
    peak = measure.peak_extra_memory(lambda: results.append(call(features, reference, batch)))
    return {
        "numbers": numbers(results[0]),
        "bytes": peak,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
    }


def numbers(result):
    """The numbers in what an implementation returned."""
    if isinstance(result, dict):
        names = ("precision", "recall", "density", "coverage")
        result = [result[n] for n in names if n in result] or list(result.values())
    return [float(x) for x in np.ravel(result)]


def table_rows(metric, limit):
    """The rows of the table for one metric."""
    ours_seconds = None
    for implementation, (_, bytes_a_pair) in IMPLEMENTATIONS[metric].items():
        if FLAGS.implementations and implementation not in FLAGS.implementations:
            continue
        row = [metric, implementation]
        needed = PACKAGES.get(implementation.split(",")[0], ())
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            yield [*row, f"not installed: {missing[0]}", "", "", "", ""]
            continue
        case = {
            "metric": metric,
            "implementation": implementation,
            "samples": FLAGS.samples,
            "width": FLAGS.width,
            "batch": FLAGS.batch,
        }
        needs = FLAGS.samples**2 * bytes_a_pair
        result = measure.run_case(__file__, case, "tensorflow", limit, needs)
        if "error" in result:
            yield [*row, result["error"], "", "", "", ""]
            continue
        seconds = result["seconds"]
        ours_seconds = ours_seconds or (seconds if implementation == "keras_vqvae2" else None)
        ratio = f"{seconds / ours_seconds:.2f}" if ours_seconds else ""
        values = " ".join(f"{x:.6g}" for x in result["numbers"])
        times = f"{seconds:.2f}", f"{result['cpu_seconds']:.2f}"
        yield [*row, *times, f"{result['bytes'] / measure.MIB:.0f}", ratio, values]


def versions():
    found = []
    for name in ("numpy", "scikit-learn", "prdc", "torch-fidelity", "torchmetrics"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def main(_):
    if FLAGS.case:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    limit = FLAGS.memory_limit_gib * measure.GIB
    columns = ["metric", "implementation", "seconds", "CPU s", "extra MiB", "ratio", "numbers"]
    rows = []
    for metric in FLAGS.metrics or IMPLEMENTATIONS:
        for row in table_rows(metric, limit):
            print(" | ".join(row), file=sys.stderr, flush=True)
            rows.append(row)
    print(f"{FLAGS.samples:,} float32 features of width {FLAGS.width} a set.", end="\n\n")
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(f"{measure.environment()} {versions()}.")


if __name__ == "__main__":
    app.run(main)
