"""Measure on a GPU and write a table: python -m benchmarks.gpu.report [-o FOLDER] [--help].

Contenders run in turns, so that a change of clocks reaches all of them; times are medians of whole batches.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.gpu import contenders
from benchmarks.gpu.contenders import Work
from benchmarks.gpu.subjects import SUBJECTS, Subject
from pysdk import _native
from pysdk.cuda import open_device


@dataclass(frozen=True)
class Measured:
    """One contender on one task.

    Attributes:
        seconds: median of a batch.
        spread: slowest over fastest round.
        first: seconds until the first batch was there, compiling and capturing included.
    """

    subject: str
    batch: int
    steps: int
    contender: str
    seconds: float
    spread: float
    first: float
    rounds: int
    flops: float

    @property
    def images_per_second(self) -> float:
        return self.batch / self.seconds


def timed(work: Work) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def builders(subject: Subject, modes: list[str]) -> dict[str, Callable[[int, int], Work]]:
    """Contenders by name; each is made for a batch and a number of steps."""
    network = subject.network

    def compiled(mode: str | None) -> torch.nn.Module:
        torch._dynamo.reset()
        return torch.compile(network, mode=mode)  # type: ignore[return-value]

    made: dict[str, Callable[[int, int], Work]] = {
        "network replay": lambda b, k: contenders.network_replay(subject, network, b, k),
        "pysdk, eager network": lambda b, k: contenders.ours(subject, network, b, k),
        "pysdk, eager network, step": lambda b, k: contenders.ours(subject, network, b, k, "step"),
        "hand-written, CUDA graph": lambda b, k: contenders.hand_written(subject, network, b, k),
        "diffusers DDIM": lambda b, k: contenders.pipeline(subject, network, b, k, "DDIM"),
        "diffusers DDPM": lambda b, k: contenders.pipeline(subject, network, b, k, "DDPM"),
    }
    if "default" in modes:
        made["network replay, compiled"] = lambda b, k: contenders.network_replay(subject, compiled(None), b, k)
        made["pysdk, compiled network"] = lambda b, k: contenders.ours(subject, compiled(None), b, k)
    for mode in modes:
        if mode != "default":
            name = f"diffusers DDIM, torch.compile {mode}"
            made[name] = lambda b, k, mode=mode: contenders.pipeline(subject, compiled(mode), b, k, "DDIM")
    return made


def measure(subject: Subject, batch: int, steps: int, modes: list[str], seconds: float) -> list[Measured]:
    """Every contender on one task, in turns for about `seconds`; one that fails is named and left out."""
    works, first = {}, {}
    for name, build in builders(subject, modes).items():
        start = time.perf_counter()
        try:
            with torch.no_grad():
                works[name] = build(batch, steps)
                timed(works[name])
        except Exception as error:  # whatever a peer raises, the others go on
            works.pop(name, None)
            print(f"  {name}: left out, {type(error).__name__}: {str(error).splitlines()[0][:150]}", flush=True)
            continue
        first[name] = time.perf_counter() - start
    once = sum(timed(work) for work in works.values())
    rounds = max(3, min(30, int(seconds / once)))
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds):
        names = list(works)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(timed(works[name]))
    flops = subject.flops()
    return [
        Measured(subject.name, batch, steps, name, median(t), max(t) / min(t), first[name], rounds, flops)
        for name, t in times.items()
    ]


def to_markdown(results: list[Measured], ceiling: float) -> str:
    """A table per task: time, images per second, overhead over the network alone, share of the matmul ceiling."""
    lines = []
    for task in dict.fromkeys((r.subject, r.batch, r.steps) for r in results):
        rows = [r for r in results if (r.subject, r.batch, r.steps) == task]
        alone = {r.contender: r.seconds for r in rows}
        lines += ["", f"### {task[0]}, batch {task[1]}, {task[2]} steps", ""]
        lines += ["| | seconds | spread | images/s | over the network alone | of the matmul ceiling | first batch, s |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for r in sorted(rows, key=lambda r: r.seconds):
            base = alone.get("network replay, compiled" if "compile" in r.contender else "network replay")
            over = "" if base is None else f"{r.seconds / base:.3f}"
            share = r.flops * r.batch * r.steps / r.seconds / ceiling
            lines += [
                f"| {r.contender} | {r.seconds:.4g} | {r.spread:.2f} | {r.images_per_second:.4g} | {over} | "
                f"{100 * share:.1f} % | {r.first:.3g} |"
            ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--subjects", default=",".join(SUBJECTS), type=lambda text: text.split(","))
    parser.add_argument("--batches", default="1,16,64,256", type=numbers)
    parser.add_argument("--steps", default="50,1000", type=numbers)
    modes = "of torch.compile: default (for our network), reduce-overhead, max-autotune"
    parser.add_argument("--modes", default="default,reduce-overhead", type=lambda text: text.split(","), help=modes)
    parser.add_argument("--seconds", default=20.0, type=float, help="about how long to measure each task")
    parser.add_argument("-o", "--out", default="benchmarks/results", type=Path)
    arguments = parser.parse_args()

    name, ceiling = open_device(0).name, contenders.matmul_ceiling()
    print(f"{name}; {ceiling / 1e12:.0f} bf16 TFLOP/s measured", flush=True)
    results: list[Measured] = []
    for subject_name in arguments.subjects:
        subject = SUBJECTS[subject_name]()
        for batch in arguments.batches:
            for steps in arguments.steps:
                print(f"{subject_name}, batch {batch}, {steps} steps", flush=True)
                results += measure(subject, batch, steps, arguments.modes, arguments.seconds)
                write(arguments.out, name, ceiling, results)  # after each task: a run may be cut short
    print(to_markdown(results, ceiling))


def write(folder: Path, device: str, ceiling: float, results: list[Measured]) -> None:
    """gpu.json and gpu.md in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        "device": device,
        "cuda": _native.cuda_status()[2],
        "matmul_bf16_flops": ceiling,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    document = {"environment": environment, "results": [asdict(result) for result in results]}
    (folder / "gpu.json").write_text(json.dumps(document, indent=1) + "\n")
    described = "\n".join(f"- {key}: {value}" for key, value in environment.items())
    (folder / "gpu.md").write_text(f"{described}\n{to_markdown(results, ceiling)}")


if __name__ == "__main__":
    main()
