"""The type stubs are the ones the built extension gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pysdk import _native


@pytest.mark.parametrize("isa", ["", "baseline"])
def test_stubs_are_up_to_date_on_any_processor(isa: str):
    tool = Path(__file__).resolve().parents[2] / "tools" / "generate_stubs.py"
    command, environment = [sys.executable, tool, "--check"], os.environ | {"PYSDK_ISA": isa}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


def test_no_constant_depends_on_the_machine():
    constants = {name for name, value in vars(_native).items() if isinstance(value, (str, int, float, tuple))}
    assert {name for name in constants if not name.startswith("__")} == {
        "BOUND_COLUMNS",
        "NUMERICS_VERSION",
        "STEP_COLUMNS",
    }
