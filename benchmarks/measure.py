"""What the benchmarks share: a case in a process of its own, its peak memory, a table.

Linux only: memory is read from `/proc`.
"""

import ctypes
import gc
import importlib.metadata
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB, GIB = 2**20, 2**30
RESULT = "RESULT "
POLL_SECONDS = 0.02  # memory grows by some 20 MiB in that time, at the 1 GiB/s of page faults


def process_memory(field, pid="self"):
    """Bytes of a field of `/proc/<pid>/status`, such as VmRSS (resident) or VmHWM (its peak)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that has just ended


def available_memory():
    """Bytes that new processes can have without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("Expected a line MemAvailable in /proc/meminfo")


def peak_extra_memory(call):
    """Bytes by which the resident set grows, at its peak, while `call()` runs.

    The kernel keeps the peak, so no allocation is too short to be seen. Memory that allocators
    hold in reserve is handed back first, or it would hide what the call needs.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak restarts from the current size
    before = process_memory("VmRSS")
    call()
    return process_memory("VmHWM") - before


def load_recipe(name):
    """The function `recipe` of a file in examples/recipes, without .py."""
    path = Path(__file__).parents[1] / "examples" / "recipes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location("recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.recipe


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
CLOCK_HELP = "Of seconds: processor counts those of all threads, and is fair beside other work."


def median_seconds(call, repeats, clock="wall"):
    """The median over calls of the time they take, or, of a `"processor"`, of what it gave them."""
    seconds = []
    for _ in range(repeats):
        started = CLOCKS[clock]()
        call()
        seconds.append(CLOCKS[clock]() - started)
    return statistics.median(seconds)


def step_timer(clock="wall"):
    """A Keras callback with the `ends`, by a clock, and `losses` of the training steps."""
    import keras

    class StepTimer(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.ends, self.losses = [], []

        def on_train_batch_end(self, batch, logs=None):
            # A step has ended when its loss can be read.
            self.losses.append(float(logs["loss"]))
            self.ends.append(CLOCKS[clock]())

    return StepTimer()


def report(result):
    """Hands the result of a case, a dict, to the process that asked for it."""
    print(RESULT + json.dumps(result), flush=True)


def run_case(script, case, backend, memory_limit, needs=0):
    """Runs `python <script> --case=<case>` with a backend, and returns what it reports.

    Args:
        script: Path of the script. With `--case` it measures one case and calls `report`.
        case: Dict of JSON values.
        backend: Value of `KERAS_BACKEND`.
        memory_limit: Bytes. A process that grows beyond is ended.
        needs: Bytes the case is known to need. It is not started if they are not there.

    Returns:
        The reported dict, or `{"error": text}`.
    """
    print(f"{backend}: {case} …", file=sys.stderr, flush=True)
    if needs > min(memory_limit, available_memory()):
        return {"error": f"out of memory: needs about {needs / GIB:.0f} GiB"}
    command = [sys.executable, str(script), f"--case={json.dumps(case)}"]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": backend}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
        outgrown = wait(process, memory_limit)
        out.seek(0)
        err.seek(0)
        lines, messages = out.read().splitlines(), err.read().strip().splitlines()
    if outgrown:
        return {"error": f"out of memory: passed {memory_limit / GIB:.0f} GiB"}
    for line in lines:
        if process.returncode == 0 and line.startswith(RESULT):
            return json.loads(line.removeprefix(RESULT))
    print("\n".join(messages[-20:]), file=sys.stderr)
    return {"error": f"failed: {messages[-1] if messages else process.returncode}"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environments(backend, processes):
    """What each process of a job finds in its environment, as a launcher would set it."""
    ports = [free_port() for _ in range(processes)]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    for i in range(processes):
        yield {
            "tensorflow": {
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
                )
            },
            "jax": {
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": addresses[0],
                "KERAS_DISTRIBUTION_NUM_PROCESSES": str(processes),
                "KERAS_DISTRIBUTION_PROCESS_ID": str(i),
            },
            "torch": {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(ports[0]),
                "WORLD_SIZE": str(processes),
                "RANK": str(i),
                "LOCAL_RANK": str(i),
            },
        }[backend]


def launch(command, backend, processes):
    """Starts a job's processes. Returns them as `subprocess.Popen` with errors piped."""
    settings = environments(backend, processes) if processes > 1 else [{}]
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "KERAS_BACKEND": backend, **setting},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for setting in settings
    ]


def wait(process, memory_limit):
    """Waits for a process to end; ends it, and returns True, when it outgrows its memory."""
    try:
        while process.poll() is None:
            if process_memory("VmRSS", process.pid) > memory_limit:
                return True
            time.sleep(POLL_SECONDS)
        return False
    finally:
        process.kill()
        process.wait()


def markdown_table(columns, rows):
    """A table in Markdown, padded so that it also reads well in a terminal."""
    cells = [columns, *([str(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def environment():
    """One line on the machine and the versions."""
    names = ("keras", "tensorflow", "jax", "torch", "vector-quantize-pytorch")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    models = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    model = models[0] if models else "unknown processor"
    return f"{len(os.sched_getaffinity(0))} cores of {model}; {', '.join(versions)}."
