"""A run that is stopped or killed at any moment, and resumed, ends in the same bits as one that never stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from kit import tiny_run
from kit.processes import IMPORTS
from kit.tiny_run import run
from torch import Tensor

from pysdk.errors import CheckpointError, OutputError
from pysdk.training import checkpoint
from pysdk.training import fit as fit_module
from pysdk.training.checkpoint import WEIGHTS, load_model, read_tensors
from pysdk.training.fit import Batches, states

KILLS = 3


def everything(folder: Path) -> dict[str, Tensor]:
    """Weights, averages and Adam states of the newest state, and the model beside it."""
    tensors = read_tensors(states(folder)[-1] / "state.safetensors")
    return tensors | {f"written.{name}": tensor for name, tensor in read_tensors(folder / WEIGHTS).items()}


def assert_same(folder: Path, other: Path) -> None:
    first, second = everything(folder), everything(other)
    assert first.keys() == second.keys()
    assert {name.partition(".")[0] for name in first} == {"model", "average", "adam", "written"}
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def start(folder: Path, steps: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "kit.tiny_run", str(folder), str(steps)]
    return subprocess.Popen(command, env=os.environ | IMPORTS, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_progress(process: "subprocess.Popen[bytes]", folder: Path, step: int) -> None:
    """Until a state of `step` or later is there, or the process has ended."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        found = states(folder)
        if found and int(found[-1].name.removeprefix("step-")) >= step:
            return
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, the run gone on with to twice its length, and that length in one go."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run(folder / "15")
    shutil.copytree(folder / "15", folder / "30")
    run(folder / "30", steps=30)
    run(folder / "30 in one", steps=30)
    torch.set_num_threads(threads)
    return folder


def test_larger_steps_go_on(uninterrupted: Path) -> None:
    assert_same(uninterrupted / "30", uninterrupted / "30 in one")


def test_finished_run_is_left_alone(uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted / "15", tmp_path / "run")
    assert run(tmp_path / "run").step == 15
    assert_same(tmp_path / "run", uninterrupted / "15")


@pytest.mark.slow
def test_killed_runs_resume_exactly(uninterrupted: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, also while states are written, each time with the leftovers of the kill before."""
    rng, killed = random.Random(time.time_ns()), 0
    for attempt in range(KILLS):
        with start(tmp_path, 30) as process:
            wait_for_progress(process, tmp_path, 6 * attempt + 3)
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
            killed += process.wait() == -signal.SIGKILL
    assert killed
    half_written = tmp_path / "states" / ".pysdk-0123456789ab.part"
    half_written.mkdir()
    (half_written / "state.safetensors").write_bytes(b"half")
    run(tmp_path, steps=30)
    assert_same(tmp_path, uninterrupted / "30 in one")


@pytest.mark.slow
def test_ctrl_c_in_a_process_saves_and_resumes(uninterrupted: Path, tmp_path: Path) -> None:
    with start(tmp_path, 100_000) as process:
        wait_for_progress(process, tmp_path, 3)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
    assert process.returncode not in (0, None)
    assert b"KeyboardInterrupt" in error
    stopped = int(states(tmp_path)[-1].name.removeprefix("step-"))
    assert stopped >= 3
    if stopped < 30:
        run(tmp_path, steps=30)
        assert_same(tmp_path, uninterrupted / "30 in one")


@pytest.mark.parametrize("moment", ["batch", "update", "average", "state", "model"])
@pytest.mark.parametrize("step", [1, 6])
def test_ctrl_c_at_any_moment(
    uninterrupted: Path, tmp_path: Path, moment: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal before and between the halves of a step, and while files are written, in the first step as well."""
    owner, name = {
        "batch": (Batches, "at"),
        "update": (torch.optim.AdamW, "step"),
        "average": (Tensor, "lerp_"),
        "state": (fit_module, "save_state"),
        "model": (fit_module, "save_model"),
    }[moment]
    original, calls = getattr(owner, name), 0
    due = {"average": 50 * step, "state": step // 3 or 1, "model": step // 3 or 1}.get(moment, step)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(*args, **kwargs)
        if calls == due:
            signal.raise_signal(signal.SIGINT)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    load_model(tmp_path)
    run(tmp_path)
    assert_same(tmp_path, uninterrupted / "15")


def test_killed_between_state_and_model(uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "save_model", killed)
        with pytest.raises(SystemExit):
            run(tmp_path, save_every=15)
    assert not (tmp_path / WEIGHTS).exists()
    run(tmp_path, save_every=15)
    assert_same(tmp_path, uninterrupted / "15")


def test_full_disk_leaves_the_last_state(uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: dict[str, Tensor]) -> bytes:
        raise OSError(28, "No space left on device")

    run(tmp_path, steps=9)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", full)
        with pytest.raises(OutputError, match="the disk is full"):
            run(tmp_path)
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step-00000009"]
    run(tmp_path)
    assert_same(tmp_path, uninterrupted / "15")


@pytest.mark.parametrize(
    ("change", "word"),
    [({"seed": 6}, "seed"), ({"learning_rate": 1e-4}, "learning_rate"), ({"flip": False}, "flip")],
)
def test_changed_settings_are_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    run(tmp_path, steps=3)
    with pytest.raises(CheckpointError, match=f"started with another {word}"):
        run(tmp_path, **change)


def test_changed_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, steps=3)
    monkeypatch.setattr(tiny_run, "MODEL", checkpoint.ModelConfig("tiny", tiny_run.UNET, "linear"))
    with pytest.raises(CheckpointError, match="started with another model"):
        run(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "no tensors", "other tensors", "no Adam", "no JSON", "empty JSON"])
def test_damaged_state_is_refused(tmp_path: Path, damage: str) -> None:
    run(tmp_path, steps=3)
    state = states(tmp_path)[0]
    tensors, description = state / "state.safetensors", state / "state.json"
    if damage == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-1])
    elif damage == "no tensors":
        tensors.unlink()
    elif damage == "other tensors":
        tensors.write_bytes(checkpoint.save_tensors({"other": torch.zeros(1)}))
    elif damage == "no Adam":
        kept = {name: tensor for name, tensor in read_tensors(tensors).items() if not name.startswith("adam.")}
        tensors.write_bytes(checkpoint.save_tensors(kept))
    elif damage == "no JSON":
        description.unlink()
    else:
        description.write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match="step-00000003"):
        run(tmp_path)
