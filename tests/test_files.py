import json
import os
import signal

import keras
import numpy as np
import pytest

from keras_vqvae2.files import clear_unfinished, keep_plan, only_process, replacing


def test_the_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_is_cleared(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(StopIteration), replacing(path) as temporary:
        temporary.write_text("half")
        left = temporary.parent
        os.rename(left, tmp_path / "aside")  # which is not cleaned up, as after a kill
        raise StopIteration
    os.rename(tmp_path / "aside", left)
    other = tmp_path / ".b.txt-x.unfinished"
    other.mkdir()
    clear_unfinished(path)
    assert list(tmp_path.iterdir()) == [other]
    clear_unfinished(tmp_path / "*")
    assert list(tmp_path.iterdir()) == []


# === A folder of one process ===


def in_another_process(function):
    """What `function` returns in a fork: a string. Locks are a process' own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, function().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return text


def test_of_two_processes_one_works(tmp_path):
    path = tmp_path / "run" / ".lock"

    def work():
        try:
            with only_process(path):
                return "works"
        except ValueError as error:
            return str(error)

    with only_process(path):
        refused = in_another_process(work)
        assert f"in use by process {os.getpid()} on " in refused and str(path.parent) in refused
    assert not path.parent.exists()  # it was made for the lock alone
    assert in_another_process(work) == "works"


def test_a_killed_process_holds_nobody_up(tmp_path):
    path = tmp_path / ".lock"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with only_process(path):
            os.write(write, b"x")
            signal.pause()
    os.read(read, 1)
    with pytest.raises(ValueError, match=f"in use by process {pid} on "), only_process(path):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert path.exists()
    with only_process(path):
        assert f"process {os.getpid()} on " in path.read_text()
    assert list(tmp_path.iterdir()) == []


# === What a run was begun with ===


def test_a_plan_names_what_differs(tmp_path):
    path = tmp_path / "run" / "plan.json"
    plan = {"batch_size": 8, "steps": 10, "model": {"units": 4, "shape": (8, 8, 3)}}
    assert keep_plan(path, plan) == {}
    written = path.read_bytes()
    assert keep_plan(path, plan) == {} and keep_plan(path, {**plan, "new": 1}) == {}
    message = (
        r"Expected batch_size=8, model.units=4, model.rate=None, with which .*run was begun. "
        r"Received: batch_size=4, model.units=2, model.rate=0.1$"
    )
    other = {**plan, "batch_size": 4, "model": {"units": 2, "shape": (8, 8, 3), "rate": 0.1}}
    with pytest.raises(ValueError, match=message):
        keep_plan(path, other, may_change=["steps"])
    assert path.read_bytes() == written
    assert keep_plan(path, {**plan, "steps": 20}, may_change=["steps"]) == {"steps": (10, 20)}
    assert json.loads(path.read_text())["steps"] == 20
    many = {f"name_{i}": 0 for i in range(9)}
    keep_plan(tmp_path / "many.json", many)
    with pytest.raises(ValueError, match="name_5=1, and 3 more that differ$"):
        keep_plan(tmp_path / "many.json", dict.fromkeys(many, 1))


def test_a_plan_takes_keras_objects_whatever_their_names(tmp_path):
    path = tmp_path / "plan.json"

    def plan(units):
        return {
            "prior": keras.layers.Dense,
            "model": {"layer": keras.layers.Dense(units), "pair": (keras.layers.ReLU(), 0.5)},
            "mean": np.float32(0.5),
        }

    assert keep_plan(path, plan(4)) == keep_plan(path, plan(4)) == {}
    with pytest.raises(ValueError, match="Expected model.layer.units=4, with .*layer.units=5"):
        keep_plan(path, plan(5))


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_plan_that_does_not_read(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="plan.json, which does not read"):
        keep_plan(path, {})
