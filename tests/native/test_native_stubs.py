"""The type stubs are the ones the built extension gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_stubs_are_up_to_date():
    tool = Path(__file__).resolve().parents[2] / "tools" / "generate_stubs.py"
    made = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
