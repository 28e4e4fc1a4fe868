"""`pysdk` run in this process: what it says, in bounded time and memory."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pysdk.cli import commands

SECONDS = 5.0
"""Of processor time, for one command on a slow machine; each takes some hundredths of a second."""
MEMORY = 300 << 20
"""More than a command had before."""


def memory(name: str) -> int:
    """VmRSS, or VmHWM, the most there was since `forget`; bytes, 0 where the system does not say."""
    if not Path("/proc/self/clear_refs").exists():
        return 0
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


def forget() -> int:
    """The memory that there is now; the most there was begins here."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr of `pysdk`, which has to be done in bounded time and memory."""
    monkeypatch.setattr(sys, "argv", ["pysdk", *arguments])
    before, start = forget(), time.process_time()
    code = 0
    try:
        commands.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    taken, seconds = memory("VmHWM") - before, time.process_time() - start
    assert seconds < SECONDS
    assert taken < MEMORY
    return code, capfd.readouterr().err


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused."""
    code, err = run(arguments, monkeypatch, capfd)
    assert_one_line(code, err)
    assert not list(Path().rglob("new*"))
    return err


def assert_one_line(code: int, err: str) -> None:
    assert err.startswith("error: "), err[-2000:]
    assert err.count("\n") == 1, err[-2000:]
    assert err.endswith("\n")
    assert len(err) < 1200
    assert code == 1
