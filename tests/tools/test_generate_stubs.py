"""The type stubs are the ones the built extension gives."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

import pytest
from kit.places import ROOT

from pysdk import _native

TOOL = ROOT / "tools" / "generate_stubs.py"


def test_stubs_are_the_same_from_any_python():
    on_any_python = runpy.run_path(str(TOOL))["on_any_python"]
    old = "import typing\nimport typing_extensions\na: typing_extensions.Buffer\nb: typing_extensions.CapsuleType\n"
    new = "import types\nimport typing\na: collections.abc.Buffer\nb: types.CapsuleType\n"
    assert on_any_python(new) == on_any_python(old) == old


@pytest.mark.parametrize("isa", ["", "baseline"])
def test_stubs_are_up_to_date_on_any_processor(isa: str):
    import pybind11_stubgen  # noqa: F401  # the tool needs it

    command, environment = [sys.executable, TOOL, "--check"], os.environ | {"PYSDK_ISA": isa}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


def test_no_constant_depends_on_the_machine():
    constants = {name for name, value in vars(_native).items() if isinstance(value, (str, int, float, tuple))}
    assert {name for name in constants if not name.startswith("__")} == {
        "BOUND_COLUMNS",
        "NUMERICS_VERSION",
        "STEP_COLUMNS",
    }
