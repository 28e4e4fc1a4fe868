"""Measure on a GPU and write gpu.json and gpu.md: python -m benchmarks.gpu.report [-o FOLDER] [--help].

Tasks come in the order of --steps, then --subjects, then --batches; --limit ends the run early, with what was measured.
Other tasks of earlier runs stay in the files of the folder if device and versions are the same.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from benchmarks.gpu.contenders import MODES, Setting, contenders, matmul_ceiling
from benchmarks.gpu.measure import Limit, Measured, Task, measure
from benchmarks.gpu.subjects import SUBJECTS, Subject, open_subject
from pysdk import _native
from pysdk.errors import DeviceError
from pysdk.machine.devices import open_device

METHOD = """\
Times are wall clock around a whole batch of images, the device idle before and after. Contenders take turns, after a
first batch that is not counted; loading weights, compiling and capturing are in the last column alone. Networks run in
bf16 on float32 chains with clipping. Images of diffusers end on the host, those of the others on the device. *Over the
network*: the median over that of `steps` replays of the same network's CUDA graph. *Of the ceiling*: operations of the
network's calls a second over those of a bf16 product of 8192x8192 matrices, measured at the start.
"""


@dataclass
class Report:
    """What was measured so far, written after each task: a run may be cut short."""

    folder: Path
    environment: dict[str, str]
    results: list[Measured] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, environment: dict[str, str]) -> Report:
        """A report that goes on with what the folder has of the same environment."""
        report, path = cls(folder, environment), folder / "gpu.json"
        if path.is_file():
            document = json.loads(path.read_text())
            if document["environment"] == environment:
                report.results = [Measured(**{**row, "task": Task(**row["task"])}) for row in document["results"]]
        return report

    def add(self, found: list[Measured]) -> None:
        """Take results in, in the place of older ones of their tasks: those of a task took turns in one run."""
        new = {row.task for row in found}
        self.results = [row for row in self.results if row.task not in new] + found

    def leave_out(self, what: str) -> None:
        """Say, and keep, what was not measured and why."""
        print(f"  left out: {what}", flush=True)
        self.left_out.append(what)

    def write(self) -> None:
        """gpu.json and gpu.md in the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {
            "environment": self.environment,
            "results": [asdict(result) for result in self.results],
            "left_out": self.left_out,
        }
        (self.folder / "gpu.json").write_text(json.dumps(document, indent=1) + "\n")
        (self.folder / "gpu.md").write_text(self.markdown())

    def markdown(self) -> str:
        """The environment, how it was measured, a table per task, and what was left out."""
        lines = [f"- {key}: {value}" for key, value in self.environment.items()]
        lines += ["", METHOD]
        for task in dict.fromkeys(result.task for result in self.results):
            rows = [result for result in self.results if result.task == task]
            lines += [f"### {task}", "", *table(rows), ""]
        if self.left_out:
            lines += ["### Left out", "", *(f"- {what}" for what in self.left_out), ""]
        return "\n".join(lines)


def table(rows: list[Measured]) -> list[str]:
    """Lines of Markdown, the fastest first."""
    header = "median, s|min, s|rounds|images/s|over the network|of the ceiling|first batch, s"
    lines = [f"| | {header.replace('|', ' | ')} |", "|---|" + "---:|" * (header.count("|") + 1)]
    medians = {row.contender: row.median for row in rows}
    for row in sorted(rows, key=lambda row: row.median):
        over = f"{row.median / medians[row.base]:.3f}" if row.base in medians else ""
        cells = [row.contender, f"{row.median:.4g}", f"{min(row.seconds):.4g}", str(len(row.seconds))]
        cells += [
            f"{row.images_per_second:.4g}",
            over,
            f"{100 * row.share_of_ceiling:.1f} %",
            f"{row.first:.3g}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def run(tasks: Iterable[Task], modes: list[str], seconds: float, limit: Limit, report: Report, ceiling: float) -> None:
    """Measure the tasks in their order; what fails costs its own numbers alone."""
    subjects: dict[str, Subject | Exception] = {}
    takes_part, missing = contenders(modes)
    for what in missing:
        report.leave_out(what)
    setting: Setting | None = None
    for task in tasks:
        if limit.over:
            report.leave_out(f"{task}: no time was left")
            continue
        print(task, flush=True)
        if task.subject not in subjects:
            try:
                subjects[task.subject] = open_subject(task.subject)
            except Exception as error:
                subjects[task.subject] = error
        subject = subjects[task.subject]
        if isinstance(subject, Exception):
            report.leave_out(f"{task}: {type(subject).__name__}: {subject}")
            continue
        if setting is None or (setting.subject, setting.batch) != (subject, task.batch):
            setting = Setting(subject, task.batch)
            torch._dynamo.reset()  # else a third batch size would be compiled for any size
        found, left_out = measure(setting, task, takes_part, seconds, limit, ceiling)
        report.add(found)
        for why in dict.fromkeys(left_out.values()):
            names = [name for name in left_out if left_out[name] == why]
            report.leave_out(f"{task}: {'; '.join(names)}: {why}")
        report.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = f"of torch.compile, among {','.join(MODES)}; default is for our network, the others for diffusers'"
    parser.add_argument("--subjects", default=",".join(SUBJECTS), type=lambda text: chosen(text, SUBJECTS))
    parser.add_argument("--batches", default="16,1,64,256", type=numbers)
    parser.add_argument("--steps", default="50,1000", type=numbers)
    parser.add_argument("--modes", default=",".join(MODES), type=lambda text: chosen(text, MODES), help=modes)
    parser.add_argument("--seconds", default=20.0, type=float, help="about how long to measure a task of short batches")
    parser.add_argument("--limit", default=float("inf"), type=float, help="seconds after which nothing new is begun")
    parser.add_argument("-o", "--out", default="benchmarks/results", type=Path)
    arguments = parser.parse_args()

    limit = Limit(arguments.limit)
    try:
        device = open_device(0).name
    except DeviceError as error:
        raise SystemExit(str(error)) from None
    if not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} sees no CUDA device; install a torch for CUDA")
    environment = {
        "device": device,
        "cuda": _native.cuda_status()[2],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    ceiling = matmul_ceiling()
    print(*environment.values(), f"{ceiling / 1e12:.0f} TFLOP/s in bf16", sep="\n", flush=True)
    tasks = [
        Task(subject, batch, steps)
        for steps in arguments.steps
        for subject in arguments.subjects
        for batch in arguments.batches
    ]
    report = Report.open(arguments.out, environment)
    run(tasks, arguments.modes, arguments.seconds, limit, report, ceiling)
    report.write()
    print(report.markdown())


def numbers(text: str) -> list[int]:
    """ "1,16" as [1, 16]. ValueError if these are not positive numbers."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return found


def chosen(text: str, among: tuple[str, ...]) -> list[str]:
    """Names from a list with commas. ArgumentTypeError for an unknown one."""
    found = text.split(",")
    for name in found:
        if name not in among:
            raise argparse.ArgumentTypeError(f"{name!r} is not among {', '.join(among)}")
    return found


if __name__ == "__main__":
    main()
