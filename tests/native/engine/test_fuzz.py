"""A few seconds of fuzz.py, the same mutants every time."""

from __future__ import annotations

from kit.engine.fuzz import fuzz


def test_mutated_programs():
    counts = fuzz(seconds=60, most=1500)
    assert counts["refused"] > 300, counts
    assert counts["run"] > 150, counts
