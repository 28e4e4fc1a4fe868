"""The bits of one numerics version, held as hashes in hashes.json.

A change of any sum or polynomial fails here: raise kNumericsVersion (csrc/base/numerics.h), say why in CHANGELOG.md,
and add what `PYTHONPATH=tests python -m kit.hashes PLAN` prints to hashes.json under the new number; PLAN is a build of
the shipped model without --tune. Never change what stands under an old number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kit.hashes import members
from kit.processes import IMPORTS

from pysdk import _native

HERE = Path(__file__).parent
SETS = ("avx512", "avx2", "baseline")


@pytest.fixture(scope="module")
def held() -> dict[str, Any]:
    found = json.loads((HERE / "hashes.json").read_text())
    assert str(_native.NUMERICS_VERSION) in found, "hashes.json has none of this numerics version"
    return found[str(_native.NUMERICS_VERSION)]


def test_the_plan_of_the_shipped_model(shipped_plan: Path, held: dict[str, Any]) -> None:
    assert members(shipped_plan) == held["members"], (
        "the shipped model gives another network or program: either packages other than constraints.txt pins are "
        "installed, or what builds plans has changed; numerics need not have"
    )


@pytest.mark.parametrize("isa", SETS)
def test_hashes(shipped_plan: Path, held: dict[str, Any], isa: str) -> None:
    command = [sys.executable, "-m", "kit.hashes", shipped_plan]
    made = subprocess.run(
        command, env=os.environ | IMPORTS | {"PYSDK_ISA": isa}, capture_output=True, text=True, check=False, timeout=300
    )
    if f"PYSDK_ISA is '{isa}'" in made.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    same_plan = found.pop("members") == held["members"]
    for name, (before, _) in found["networks"].items():
        assert before == held["networks"][name][0], f"{name}: numpy made other numbers to begin with"
    drawn = found.pop("images")
    assert found == {name: held[name] for name in found}
    if same_plan:  # if not, the test before this one says so
        assert drawn == {name: held["images"][name] for name in drawn}
