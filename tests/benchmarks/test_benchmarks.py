"""The benchmarks run, at sizes that say nothing about speed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from PIL import Image

from keras_vqvae2.data import sample_photographs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BACKEND = keras.backend.backend()

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def run(script, *arguments):
    """The rows of the table that a benchmark prints, as lists of cells, without its head."""
    command = [sys.executable, BENCHMARKS / script, f"--backends={BACKEND}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]
    ], done.stderr


def test_quantizer():
    implementations = ["keras_vqvae2", "one-hot"]
    if BACKEND == "torch" and importlib.util.find_spec("vector_quantize_pytorch"):
        implementations.insert(1, "vector-quantize-pytorch")
    rows, messages = run(
        "quantizer.py",
        "--vectors=3000",
        "--codes=8",
        "--repeats=1",
        f"--implementations={','.join(implementations)}",
    )
    assert [row[:4] for row in rows] == [["ema", "8", name, BACKEND] for name in implementations], (
        messages
    )
    losses = [float(row[7]) for row in rows]
    assert losses == pytest.approx([losses[0]] * len(losses), abs=2e-5)
    assert 0.1 < losses[0] < 1.0
    assert all(float(row[4]) > 0 and float(row[5]) >= 0 for row in rows), rows
    assert float(rows[0][6]) == 1.0


@pytest.mark.slow
def test_other_quantizers():
    names = ["cosine", "residual", "fsq", "lfq", "bsq", "simvq", "ibq"]
    settings = ["--vectors=3000", "--codes=256", "--repeats=1", f"--quantizers={','.join(names)}"]
    rows, messages = run("quantizer.py", *settings, "--implementations=keras_vqvae2")
    assert [row[0] for row in rows] == names, messages
    assert all(float(row[4]) > 0 for row in rows)


def test_quantizer_does_not_start_what_cannot_fit():
    rows, _ = run("quantizer.py", "--vectors=524288", "--codes=16384", "--implementations=one-hot")
    assert len(rows) == 1
    assert rows[0][4].startswith("out of memory: needs about ")


def test_a_case_that_outgrows_its_memory_is_ended():
    rows, _ = run(
        "quantizer.py",
        "--vectors=1000",
        "--codes=8",
        "--implementations=keras_vqvae2",
        "--memory_limit_gib=0.05",
    )
    assert rows[0][4].startswith("out of memory: passed ")


@pytest.mark.slow
def test_train_step():
    rows, messages = run("train_step.py", "--sizes=32:2", "--steps=1", "--warmup_steps=1")
    compiled = {"tensorflow": ["False", "True"], "jax": ["True"], "torch": ["False"]}[BACKEND]
    expected = [["32x32", "2", "float32", BACKEND, jit] for jit in compiled]
    assert [row[:5] for row in rows] == expected, messages
    for row in rows:
        seconds, images_a_second, peak, loss = map(float, row[5:])
        assert images_a_second == pytest.approx(2 / seconds, rel=0.05)
        assert peak > 100 and 0 < loss < 10


@pytest.mark.slow
def test_decode():
    priors = ["pixelsnail", "transformer", "masked_transformer"]
    options = ["--levels=bottom", "--batches=2", "--naive_rows=2", f"--priors={','.join(priors)}"]
    rows, messages = run("decode.py", "--small", *options)
    expected = [[name, "bottom", "2", BACKEND] for name in priors]
    assert [row[:4] for row in rows] == expected, messages
    for row in rows[:2]:
        seconds, naive, times_faster, floor, over_floor, *rest = map(float, row[4:])
        assert seconds > floor > 0 and all(number >= 0 for number in rest)
    assert float(rows[2][4]) > 0 and not any(rows[2][5:])


@pytest.mark.slow
def test_pytorch_port_without_the_port():
    """Whether its drawing and training equal ours is the converters' tests' affair."""
    work = ["stage 1", "prior", "draw top"]
    rows, messages = run(
        "pytorch_port.py", "--small", f"--work={','.join(work)}", "--images=1", "--steps=1"
    )
    assert [row[:3] for row in rows] == [[w, "keras_vqvae2", BACKEND] for w in work], messages
    assert all(float(row[3]) > 0 and row[4] == "" for row in rows)


def test_pytorch_port_elsewhere(tmp_path):
    command = [sys.executable, BENCHMARKS / "pytorch_port.py", f"--port={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("pytorch_port: Expected a clone of the port.")


@pytest.mark.slow
def test_train_prior_step():
    rows, messages = run(
        "train_prior_step.py", "--levels=top", "--batch=1", "--steps=1", "--warmup_steps=1"
    )
    case = ["priors_imagenette_128", "top", "1", BACKEND, "float32"]
    assert [row[:6] for row in rows] == [[*case, flag] for flag in ("no", "yes")], messages
    for row in rows:
        seconds, codes_a_second, peak, parameters = map(float, row[6:])
        assert codes_a_second == pytest.approx(256 / seconds, rel=0.05)
        assert peak > 100 and parameters == 4_461_848


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="runs are forks of a process, sound on PyTorch")
def test_kills():
    command = [sys.executable, BENCHMARKS / "kills.py", "--kills=6", "--writes=2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) == 12 and all(row[6] == "0" for row in rows), rows


@pytest.mark.slow
def test_first_images():
    rows, messages = run("first_images.py", "--preset=imagenette_128", "--images=2")
    assert [row[:3] for row in rows] == [["imagenette_128", "2", BACKEND]], messages
    assert all(float(seconds) > 0 for seconds in rows[0][3:])


@pytest.mark.slow
def test_stage_1_limits(tmp_path):
    for i, photograph in enumerate(sample_photographs((128, 128))):
        Image.fromarray(photograph).save(tmp_path / f"{i}.png")
    command = [sys.executable, BENCHMARKS / "stage_1_limits.py", f"--data={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.strip("|").split("|") for line in done.stdout.splitlines() if "|" in line][2:]
    psnr = {name.strip(): float(value) for name, value in lines}
    assert list(psnr) == ["nothing", "top", "bottom", "top and bottom"]
    assert 24 < psnr["nothing"] < psnr["bottom"]


@pytest.mark.slow
def test_stage_1_variants(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        for i, photograph in enumerate(sample_photographs((64, 64))):
            Image.fromarray(photograph).save(tmp_path / split / f"{i}.png")
    command = [sys.executable, BENCHMARKS / "stage_1_variants.py", f"--data={tmp_path}/train"]
    command += [f"--validation={tmp_path}/validation", f"--output={tmp_path}/rows.jsonl"]
    command += ["--steps=1", "--batch_size=2", "--hidden_units=8"]
    command += ["--prior_steps=1"]
    first, second = "averages start at zero", "residual of depth 4 with one codebook"
    for variants in (first, f"{first},{second}"):
        done = subprocess.run([*command, f"--variants={variants}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["variant"] for row in rows] == [first, second]
    assert all(0 < row["psnr"] < 30 and row["lpips"] > 0 for row in rows)
    for row in rows:
        assert row["nats_top"] > 0 and 0 < row["nats_bottom"] < 8
        assert 0.5 < row["prior_bits_per_pixel"] / row["bits_per_pixel"] < 1.5
    assert f"| {second}" in done.stdout


@pytest.mark.slow
def test_feature_metrics():
    command = [sys.executable, BENCHMARKS / "feature_metrics.py", "--samples=40", "--width=16"]
    command += ["--metrics=precision_recall", "--implementations=keras_vqvae2,torch-fidelity"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, *others = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith("| precision_recall")
    ]
    precision, recall = map(float, ours[6].split())
    assert ours[1] == "keras_vqvae2" and 0 < precision < 1 and 0 < recall <= 1
    assert float(ours[2]) >= 0 and float(ours[3]) > 0 and float(ours[5]) == 1.0
    for row in others:
        if not row[2].startswith("not installed"):
            assert list(map(float, row[6].split()))[:2] == [precision, recall], done.stderr


@pytest.mark.slow
def test_scaling():
    rows, messages = run("scaling.py", "--counts=1,2", "--steps=3", "--timed_steps=0")
    names = ["1", "2 processes"] if BACKEND == "torch" else ["1", "2 devices", "2 processes"]
    assert [row[1:3] for row in rows] == [[s, n] for s in ("1", "2") for n in names], messages
    assert all(float(row[3]) < 1e-4 and float(row[5]) < 1e-4 for row in rows), rows


@pytest.mark.slow
def test_three_levels_1024():
    rows, messages = run("three_levels_1024.py", "--hidden_units=8")
    assert len(rows) == 10, messages
    assert all(float(row[3]) > 0 for row in rows), rows


@pytest.mark.slow
def test_codec_of_a_folder(tmp_path):
    for i, photograph in enumerate(sample_photographs((64, 64))):
        Image.fromarray(photograph).save(tmp_path / f"{i}.png")
    command = [sys.executable, BENCHMARKS / "codec.py", "--preset=eurosat_64", "--images=3"]
    done = subprocess.run(
        [*command, f"--data={tmp_path}", "--nolpips"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.strip("|").split("|") for line in done.stdout.splitlines() if "|" in line][2:]
    sizes = {name.strip(): float(size) for name, size, *_ in lines}
    assert sizes["VQVAE2, codes packed"] == 111  # 90 of the codes and the header
    assert any(name.startswith("JPEG") for name in sizes)


@pytest.mark.slow
def test_draw_pixels():
    names = ["pixelcnnpp_cifar10", "pixelcnn_cifar10"]
    command = [sys.executable, BENCHMARKS / "draw_pixels.py", f"--recipes={','.join(names)}"]
    command += ["--batch=1", "--naive_passes=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.strip("|").split("|") for line in done.stdout.splitlines() if "|" in line][2:]
    assert [line[0].strip() for line in lines] == names
    assert all(float(line[-1]) > 1 for line in lines)
