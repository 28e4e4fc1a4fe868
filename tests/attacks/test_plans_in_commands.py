"""Every command that takes a plan, against every kind of hostile plan: exit code 1, one line on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit.attacks.command import assert_one_line, refused, run
from kit.attacks.pictures_and_arrays import PICTURES
from kit.attacks.plans import KINDS, NETWORKS, PLANS, WORDS, Make, written
from kit.processes import IMPORTS

pytest.importorskip("torch")

pytestmark = pytest.mark.timeout(20)

WITH_PLAN = {
    "info": ["info", "PLAN"],
    "sample": ["sample", "PLAN", "-n", "1", "-o", "new.png"],
    "edit": ["edit", "PLAN", "good.png", "-o", "new.png"],
    "inpaint": ["inpaint", "PLAN", "good.png", "--mask", "white.png", "--jump-n-sample", "1", "-o", "new.png"],
    "interpolate": ["interpolate", "PLAN", "good.png", "good.png", "--steps", "5", "-o", "new.png"],
    "evaluate": ["evaluate", "PLAN", "--reference", "good.npz", "--features", "features.onnx", "-n", "8"],
    "likelihood": ["likelihood", "PLAN", "--data", "good.npz", "-n", "2"],
    "compression": ["compression", "PLAN", "--data", "good.npz", "-n", "2", "-o", "new.csv"],
    "build": ["build", "PLAN", "-o", "new.plan"],
    "add-classifier": ["add-classifier", "PLAN", "good.pt"],
}
DRAWING = [name for name in WITH_PLAN if name not in ("info", "build", "add-classifier")]


@pytest.mark.parametrize("attack", PLANS)
@pytest.mark.parametrize("command", WITH_PLAN)
def test_a_file_that_is_no_plan(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    PLANS[attack](here / "a.plan")
    arguments = ["a.plan" if word == "PLAN" else word for word in WITH_PLAN[command]]
    assert "a.plan" in refused(arguments, monkeypatch, capfd)


@pytest.mark.parametrize("attack", NETWORKS)
@pytest.mark.parametrize("command", DRAWING)
def test_a_network_in_a_plan(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    NETWORKS[attack](here / "a.plan")
    arguments = ["a.plan" if word == "PLAN" else word for word in WITH_PLAN[command]]
    assert WORDS[attack] in refused([*arguments, "--max-memory", "200MB"], monkeypatch, capfd)


@pytest.mark.parametrize("attack", NETWORKS)
def test_a_network_that_is_described(
    here: Path, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    NETWORKS[attack](here / "a.plan")
    assert run(["info", "a.plan"], monkeypatch, capfd) == (0, "")


@pytest.mark.parametrize("attack", ["damaged", "external data", "hidden external data", "brackets", "no network"])
def test_a_network_that_is_not_built_again(
    here: Path, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    NETWORKS[attack](here / "a.plan")
    assert WORDS[attack] in refused(["build", "a.plan", "-o", "new.plan"], monkeypatch, capfd)


@pytest.mark.parametrize(
    ("name", "make", "arguments"),
    [
        ("a.plan", KINDS["pipe"], ["sample", "a.plan"]),
        ("a.png", written(PICTURES["wide"]), ["edit", "good.plan", "a.png"]),
        ("a.plan", NETWORKS["loop"], ["sample", "a.plan"]),
    ],
)
def test_as_users_run_it(here: Path, name: str, make: Make, arguments: list[str]) -> None:
    make(here / name)
    program = [sys.executable, "-c", "from pysdk.cli.__main__ import main; main()", *arguments]
    environment = os.environ | IMPORTS
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=15, env=environment)
    assert_one_line(done.returncode, done.stderr)
