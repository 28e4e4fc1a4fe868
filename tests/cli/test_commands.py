"""The command line, from training to pictures: what it writes, what it says, and one line for every error."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from kit.places import CLASSIFIER, FASHION_MNIST
from kit.processes import IMPORTS
from kit.tiny_networks import multiplication, toy_engine, write_toy_plan
from PIL import Image

from pysdk import Clip, Sampler
from pysdk.cli import commands
from pysdk.cli.parsing import numbers, solver_options

SMALL = ["--model-channels=8", "--channel-mult=1", "--num-res-blocks=1", "--head-channels=8", "--norm-groups=4"]


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def pysdk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`pysdk` as it is called from a shell, in an empty folder, but in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["pysdk", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            commands.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy_plan(tmp_path / "toy.plan", num_classes=3, null_label=3)


# sample


def test_a_grid_by_default(pysdk: Command, toy: Path) -> None:
    assert pysdk("sample", toy) == Outcome(0, "wrote grid.png\n", "")
    with Sampler(toy) as sampler, Image.open("grid.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(sampler.sample().grid()))


def test_an_array_of_what_the_options_ask_for(pysdk: Command, conditional_plan: Path, conditional: Sampler) -> None:
    options = "-n 3 --seed 5 --start 7 --steps 6 --solver ddim --labels 0,2,3 --guidance-scale 1.5,0,3.0 -s eta=0.5"
    outcome = pysdk("sample", conditional_plan, *options.split(), "--threads", 1, "--batch-size", 2, "-o", "a.npz")
    assert outcome == Outcome(0, "wrote a.npz\n", "")
    with np.load("a.npz") as arrays:
        found = arrays["arr_0"]
    request = {"labels": [0, 2, 3], "guidance_scale": [1.5, 0, 3.0], "eta": 0.5}
    np.testing.assert_array_equal(found, conditional.sample(3, seed=5, start=7, steps=6, solver="ddim", **request))


@pytest.mark.parametrize(
    ("option", "text", "steps"),
    [
        ("--steps", "4", 4),
        ("--steps", "ddim4", "ddim4"),
        ("--steps", "2,1,1", "2,1,1"),
        ("--timesteps", "750,500,250,0", [750, 500, 250, 0]),
        ("--timesteps", "500", [500]),
    ],
)
def test_ways_to_say_which_steps(
    pysdk: Command, conditional_plan: Path, conditional: Sampler, option: str, text: str, steps: object
) -> None:
    assert pysdk("sample", conditional_plan, "-n", 2, option, text, "-o", "a.npz").code == 0
    with np.load("a.npz") as arrays:
        np.testing.assert_array_equal(arrays["arr_0"], conditional.sample(2, steps=steps))


def test_a_folder_of_pictures(pysdk: Command, toy: Path) -> None:
    assert pysdk("sample", toy, "-n", 3, "-o", "pictures").code == 0
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["00000.png", "00001.png", "00002.png"]


@pytest.mark.parametrize(("frames", "expected"), [(10, 10), (7, 7), (1, 1), (500, 50)])
def test_an_animation_ends_on_the_sample(
    pysdk: Command, conditional_plan: Path, conditional: Sampler, frames: int, expected: int
) -> None:
    assert pysdk("sample", conditional_plan, "-n", 2, "--columns", 1, "--frames", frames, "-o", "a.GIF").code == 0
    with Image.open("a.GIF") as animation:
        assert getattr(animation, "n_frames", 1) == expected
        animation.seek(expected - 1)
        last = np.asarray(animation.convert("L"))
    np.testing.assert_array_equal(last, np.asarray(conditional.sample(2).grid(columns=1)))


# info


def test_info(pysdk: Command, tmp_path: Path) -> None:
    path = write_toy_plan(tmp_path / "toy.plan", engines=(toy_engine(kind="quantum"), toy_engine()))
    outcome = pysdk("info", path, "--verify")
    assert (outcome.code, outcome.err) == (0, "")
    assert "toy: 1x2x2" in outcome.out
    assert "\nruns here: onnxruntime; quantum not: this pysdk does not know it\n" in outcome.out
    described = json.loads(pysdk("info", path, "--json").out)
    assert described["model"]["shape"] == [1, 2, 2]
    assert described["schedule"]["num_timesteps"] == 10
    assert described["runs_here"].startswith("onnxruntime")
    nothing = write_toy_plan(tmp_path / "none.plan", engines=())
    assert "runs here: none (plan" in pysdk("info", nothing).out


def test_verify_reads_every_member(pysdk: Command, toy: Path) -> None:
    toy.write_bytes(toy.read_bytes().replace(b"multiplication", b"Multiplication"))
    assert pysdk("info", toy).code == 0
    outcome = pysdk("info", toy, "--verify")
    assert outcome.code == 1
    assert "'network.onnx' has SHA-256" in outcome.err


# errors


@pytest.mark.parametrize("target", ["taken/", "folder.png"])
def test_what_cannot_be_written_is_not_drawn(
    pysdk: Command, toy: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    Path("taken").mkdir()
    Path("taken/file").touch()
    Path("folder.png").mkdir()
    monkeypatch.setattr(Sampler, "sample", lambda *_, **__: pytest.fail("drawn before the check"))
    outcome = pysdk("sample", toy, "-o", target)
    assert outcome.code == 1
    assert "cannot write" in outcome.err


def test_pictures_of_two_channels_are_not_drawn(
    pysdk: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = write_toy_plan(tmp_path / "two.plan", multiplication(0.5, shape=(2, 2, 2)), shape=(2, 2, 2), out_channels=2)
    assert pysdk("sample", plan, "-n", 1, "-o", "a.npz").code == 0
    monkeypatch.setattr(Sampler, "sample", lambda *_, **__: pytest.fail("drawn before the check"))
    outcome = pysdk("sample", plan, "-n", 1, "-o", "a.png")
    assert outcome == Outcome(1, "", "error: pictures have 1 or 3 channels, these have 2; save them as .npz\n")


@pytest.mark.parametrize(
    ("text", "clip"),
    [("none", Clip.none()), ("dynamic", Clip.dynamic()), ("1.5", Clip.clamp(1.5)), ("2", Clip.clamp(2.0))],
)
def test_a_clip_in_words(text: str, clip: Clip) -> None:
    assert solver_options((f"clip={text}", "eta=0.5")) == {"clip": clip, "eta": 0.5}


def test_numbers_with_exponents() -> None:
    assert numbers("guidance_scale", "1e1,2,-2.5e-1") == [10.0, 2, -0.25]
    assert isinstance(numbers("labels", "3"), int)


def test_memory_that_is_not_there_is_one_line(pysdk: Command, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 32.0 GiB")

    monkeypatch.setattr(Sampler, "sample", full)
    outcome = pysdk("sample", toy)
    assert outcome.code == 1
    assert outcome.err == (
        "error: there is not enough memory for this (Unable to allocate 32.0 GiB); ask for fewer images at once\n"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_below_stdout_is_one_line(toy: Path, unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "pysdk.cli", "info", "--json", str(toy)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "error: [Errno 28]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sample missing.plan", "there is no plan at 'missing.plan'"),
        ("info missing.plan", "there is no plan at 'missing.plan'"),
        ("sample toy.plan -n -1", "n is -1, expected a whole number"),
        ("sample toy.plan --steps 11", "steps is 11, expected 1 to 10"),
        ("sample toy.plan --steps many", "steps is 'many', expected 'ddimN'"),
        ("sample toy.plan --steps 1;2", "steps is '1;2', expected 'ddimN' or counts"),
        ("sample toy.plan --labels cat", "labels is 'cat', expected a number or several with commas"),
        ("sample toy.plan --labels 0,1", "labels has shape (2,), expected a whole number or one per image"),
        ("sample toy.plan --guidance-scale nan", "guidance_scale is 'nan', expected a number"),
        ("sample toy.plan --solver magic", "solver is 'magic', expected one of"),
        ("sample toy.plan -s eta", "option is 'eta', expected NAME=VALUE"),
        ("sample toy.plan -s eta=2", "has no option 'eta'"),
        ("sample toy.plan --solver ddim -s eta=much", "eta is 'much', expected a number"),
        ("sample toy.plan --engine quantum", "no engine 'quantum'"),
        ("sample toy.plan --threads 0", "threads is 0, expected a whole number from 1"),
        ("sample toy.plan -o a.txt", "images cannot be saved as '.txt'"),
        ("sample toy.plan -o toy.plan/a.png", "cannot write"),
        ("sample toy.plan -o missing/a.gif", "there is no folder"),
        ("sample toy.plan -n 4294967296 -o a.npz --columns 2", "--columns is for a grid, and 'a.npz' holds none"),
        ("sample toy.plan -n 4294967296 -o .", "cannot write"),
        ("sample toy.plan -s seed=3", "no solver has an option 'seed'; there are ['clip', 'corrector_steps', 'eta'"),
        ("sample toy.plan -s n=3", "no solver has an option 'n'"),
        ("sample toy.plan -s clip=hard", "clip is 'hard', expected none, dynamic or the limit of a clamp"),
        ("sample toy.plan -s clip=0", "clip limit is 0.0"),
        ("evaluate toy.plan --out missing/a.json", "there is no folder"),
        ("likelihood toy.plan --out missing/a.json", "there is no folder"),
        ("compression toy.plan -o missing/a.csv", "there is no folder"),
        ("build . -o missing/a.plan", "there is no folder"),
        ("train --data %DATA --batch-size 4 --out toy.plan/run", "cannot write"),
        ("build missing", "load the checkpoint: 'missing' is nothing that can be built"),
        (
            "build toy.plan -o other.plan --num_classes 3",
            "load the checkpoint: a plan takes no option 'num_classes'; leave it out",
        ),
        ("train --data missing.npz --out run", "missing.npz"),
        ("train --data missing.npz --out run --device abacus", "device is 'abacus'; expected cpu, cuda"),
        ("evaluate %DATA --threads 0 --features %FEATURES", "threads is 0"),
        ("evaluate %DATA --keep -1 --reference %DATA --features %FEATURES", "keep is -1"),
    ],
)
def test_errors_are_one_line(pysdk: Command, toy: Path, arguments: str, message: str) -> None:
    outcome = pysdk(*arguments.replace("%DATA", str(FASHION_MNIST)).replace("%FEATURES", str(CLASSIFIER)).split(" "))
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert [path.name for path in toy.parent.iterdir()] == ["toy.plan"]


@pytest.mark.parametrize(
    "arguments", ["sample toy.plan --frames 0", "sample toy.plan -n many", "sample", "draw", "build a --batch-size 0"]
)
def test_wrong_usage_is_explained(pysdk: Command, toy: Path, arguments: str) -> None:
    outcome = pysdk(*arguments.split())
    assert outcome.code == 2
    assert "Usage: " in outcome.err


def test_nan_is_an_error_and_leaves_no_file(pysdk: Command, tmp_path: Path) -> None:
    write_toy_plan(tmp_path / "toy.plan", multiplication(float("nan")))
    outcome = pysdk("sample", "toy.plan", "-o", "a.png")
    assert outcome.code == 1
    assert outcome.err.startswith("error: image 0 became NaN or infinite in 10 rows")
    assert not Path("a.png").exists()


def test_ctrl_c(pysdk: Command, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sampler, "sample", interrupted)
    outcome = pysdk("sample", toy)
    assert (outcome.code, outcome.err.strip()) == (130, "interrupted")


FULL = """
import resource, signal, sys
from pysdk.cli.commands import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60, resource.RLIM_INFINITY))
main()
"""


@pytest.mark.parametrize("out", ["a.png", "a.npz", "a.gif", "folder"])
def test_a_full_disk(toy: Path, out: str) -> None:
    command = [sys.executable, "-c", FULL, "sample", toy, "-o", out]
    environment = os.environ | IMPORTS
    done = subprocess.run(command, cwd=toy.parent, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot write ")
    assert done.stderr.endswith("it grew larger than a file may be here\n")
    assert [path.name for path in toy.parent.iterdir()] == ["toy.plan"]


# help, and the whole journey


def test_help_lists_every_command(pysdk: Command) -> None:
    listed = re.findall(r"^  ([a-z-]+)  ", pysdk("--help").out.partition("Commands:")[2], re.MULTILINE)
    assert {"build", "info", "sample", "train", "compression"} < set(listed)
    for name in listed:
        assert f"pysdk {name} [OPTIONS]" in pysdk(name, "--help").out
    assert "pysdk, version " in pysdk("--version").out


@pytest.mark.slow
def test_from_data_to_pictures(pysdk: Command) -> None:
    import torch  # noqa: F401  # the commands say in a line that they need it

    train = [
        "--data",
        FASHION_MNIST,
        "--out",
        "run",
        "--steps",
        5,
        "--batch-size",
        4,
        "--timesteps",
        20,
        "--device",
        "cpu",
        *SMALL,
    ]
    outcome = pysdk("train", *train, "--attention-levels", "", "--learn-variance", "--loss", "hybrid")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("run: 5 steps in ")

    outcome = pysdk("build", "run", "-o", "fashion.plan")
    assert outcome.code == 1
    assert outcome.err == "error: check the defaults: steps is 50, expected 1 to 20, the timesteps of the schedule\n"
    outcome = pysdk("build", "run", "-o", "fashion.plan", "--steps", 10, "--guidance-scale", 1.5, "-v")
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"wrote fashion.plan ({Path('fashion.plan').stat().st_size:,} bytes)\n"
    for step in ("load the checkpoint", "check the defaults", "export to ONNX", "check the engines", "write the plan"):
        assert f"\n{step}" in f"\n{outcome.err}"
    assert "max |engine - torch| over 20 timesteps: " in outcome.err

    assert "fashion_mnist_1000: 1x28x28, 10 classes, guidance" in pysdk("info", "fashion.plan", "--verify").out
    command = [Path(sysconfig.get_path("scripts")) / "pysdk", "sample", "fashion.plan", "-n", "4", "-o", "grid.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("wrote grid.png\n", "")
    with Sampler("fashion.plan") as sampler, Image.open("grid.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(sampler.sample(4).grid()))
