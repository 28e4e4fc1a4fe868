"""Two processes that are kept alive and work in turns."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.fresh_process import peak
from benchmarks.interleave import PAUSE

CHILD = Path(__file__).with_name("child.py")
LOAD = 0
"""The batch that stands for loading the plan."""


class SideError(RuntimeError):
    """A side ended before it was told to."""


class Process:
    """One side.

    Args:
        name: "A" or "B".
        python: its executable.
        work: the arguments of `benchmarks.regression.child.Side`.

    Raises:
        SideError: it cannot load the plan; why is on stderr.
    """

    def __init__(self, name: str, python: Path, work: dict[str, Any]) -> None:
        self.name = name
        # -P: the packages of this folder are not the side's
        self._process = subprocess.Popen(
            [python, "-P", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.description = self.ask(work)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        if kind is not None:
            self._process.terminate()
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = ""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            raise SideError(f"side {self.name} ended with exit code {self._process.wait()}; its own words are above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def peak(self) -> int | None:
        """Most bytes it had in memory at once so far; None where the system does not count them."""
        return peak(str(self._process.pid)) if Path("/proc/self/status").is_file() else None


@dataclass
class Times:
    """Seconds of one piece of work on each side, pair by pair, and what it made."""

    batch: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"A": [], "B": []})
    hashes: dict[str, set[str | None]] = field(default_factory=lambda: {"A": set(), "B": set()})

    def ratios(self) -> list[float]:
        """B over A, within each pair."""
        return [b / a for a, b in zip(self.seconds["A"], self.seconds["B"], strict=True)]


def take_turns(sides: Sequence[Process], batches: Sequence[int], pairs: int) -> list[Times]:
    """A B B A A B B A ..., each piece of work in every round; one round before that is not counted."""
    found = [Times(batch) for batch in batches]
    for pair in range(-1, pairs):
        for times in found:
            for side in sides if pair % 2 == 0 else reversed(sides):
                time.sleep(PAUSE)
                answer = side.ask({"batch": times.batch})
                times.hashes[side.name].add(answer["hash"])
                if pair >= 0:
                    times.seconds[side.name].append(answer["seconds"])
    return found
