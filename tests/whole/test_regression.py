"""The comparison of two versions, here of one with itself: what it says, not how long it took."""

import json
import os
import subprocess
import sys
from math import comb
from pathlib import Path

import pytest
from kit.places import ROOT

from benchmarks.regression.ratio import FEWEST, Ratio, outer_rank

pytestmark = pytest.mark.slow


def compare(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.regression", sys.executable, sys.executable, *map(str, arguments)]
    environment = os.environ | {"PYTHONSAFEPATH": ""}  # it is found in the checkout
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_version_and_itself(conditional_plan: Path, tmp_path: Path) -> None:
    sizes = ("--plan", conditional_plan, "--batch", "1,3", "--pairs", FEWEST, "--steps", 2, "--threads", 1)
    made = compare(*sizes, "--json", tmp_path / "result.json")
    assert made.returncode == 0, made.stderr
    assert "95 % of the median" in made.stdout
    result = json.loads((tmp_path / "result.json").read_text())
    load, *work = result["work"]
    assert [times["batch"] for times in (load, *work)] == [0, 1, 3]
    assert [times["equal"] for times in work] == [True, True]
    for times in (load, *work):
        assert {len(seconds) for seconds in times["seconds"].values()} == {FEWEST}
        low, high = times["ratio"]["interval"]
        assert 0 < low <= times["ratio"]["median"] <= high
        assert f"| {low:.3f} to {high:.3f} |" in made.stdout
    for side in result["sides"].values():
        assert side["numerics"] == 1
        assert side["engine"] == "native"


def test_two_plans_that_differ(conditional_plan: Path, unconditional_plan: Path) -> None:
    plans = ("--plans", conditional_plan, unconditional_plan)
    made = compare(*plans, "--batch", "1", "--pairs", FEWEST, "--steps", 2, "--threads", 1)
    assert made.returncode == 0, made.stderr
    assert "DIFFERENT" in made.stdout


def test_a_side_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "no.plan").write_bytes(b"no plan")
    made = compare("--plan", tmp_path / "no.plan", "--pairs", FEWEST)
    assert made.returncode == 1
    assert "no.plan" in made.stderr
    assert "side A ended with exit code 1" in made.stderr


@pytest.mark.parametrize("count", [6, 7, 20, 30, 101])
def test_the_interval_covers_the_median(count: int) -> None:
    def outside(rank: int) -> float:
        return 2 * sum(comb(count, k) for k in range(rank)) / 2**count

    rank = outer_rank(count)
    assert rank >= 1
    assert outside(rank) <= 0.05 < outside(rank + 1)


def test_a_ratio() -> None:
    found = Ratio.of([1.0, 1.1, 0.9, 1.2, 0.8, 1.05, 0.95])
    assert (found.median, found.interval) == (1.0, (0.8, 1.2))
    assert 0.8 < found.quartiles[0] < 1 < found.quartiles[1] < 1.2
    with pytest.raises(ValueError, match="take 6 pairs or more"):
        Ratio.of([1.0] * 5)
