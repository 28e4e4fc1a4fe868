"""Runs every benchmark and writes a table, a picture and the raw numbers: `python -m benchmarks.report`.

Arguments are handed to pytest, e.g. `--plan my.plan --checkpoint my/checkpoint --threads 1 --seconds 2`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import environment, table
from benchmarks.plot import plot
from benchmarks.workload import ROOT

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
RAW = ROOT / "build" / "benchmarks" / "raw.json"


def main(arguments: list[str]) -> int:
    """Run, then write benchmarks/results/<date>-<processor>.{md,png,json}; pytest's exit status."""
    RAW.parent.mkdir(parents=True, exist_ok=True)
    RAW.unlink(missing_ok=True)
    status = pytest.main([str(FOLDER), "--quiet", f"--benchmark-json={RAW}", *arguments])
    if status == pytest.ExitCode.OK:
        print(f"wrote {write(json.loads(RAW.read_text()), RESULTS)}")
    return int(status)


def write(raw: dict[str, object], folder: Path) -> Path:
    """The three files of one run; returns the Markdown one."""
    machine, benchmarks = raw["machine_info"], raw["benchmarks"]
    assert isinstance(machine, dict)
    assert isinstance(benchmarks, list)
    date = str(raw["datetime"])[:10]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{date}-{environment.slug(machine)}"
    path.with_suffix(".json").write_text(json.dumps(rounded(raw), separators=(",", ":")) + "\n")
    plot(benchmarks, f"{machine['cpu']}, {environment.threads(machine)}, {date}", path.with_suffix(".png"))
    markdown = path.with_suffix(".md")
    markdown.write_text(
        f"# Benchmarks, {date}\n\n{environment.describe(machine)}\n"
        "Median (minimum) of interleaved rounds; **bold**: the peer's time over ours, median of the rounds' pairs, so "
        "above 1 we are faster. How it is measured: [docs/benchmarks.md](../../docs/benchmarks.md).\n\n"
        f"![Peers' time over ours]({path.name}.png)\n\n{table.render(benchmarks)}"
    )
    return markdown


def rounded(value: object) -> object:
    """JSON values with floats to six digits, more than a clock is good for: the file is kept."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
