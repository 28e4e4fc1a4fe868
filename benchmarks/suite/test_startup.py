"""A new process: until the import is done, until the sampler is ready, until the first image is drawn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleave import interleave
from benchmarks.workload import ROOT, Workload

OURS = {
    "import": "from pysdk import Sampler",
    "ready": "from pysdk import Sampler; sampler = Sampler({plan!r}, threads={threads})",
    "first image": "sampler.sample(1, solver='ddim', steps=50, progress=False)",
}
TORCH = {
    "import": "import torch; from diffusers import DDIMPipeline, DDIMScheduler",
    "ready": "torch.set_num_threads({threads}); from pathlib import Path; from pysdk import Plan;"
    "from benchmarks.peers import TorchUnet, ddim_pipeline;"
    "m = Plan.open({plan!r}).manifest; pipe = ddim_pipeline(TorchUnet(m, Path({checkpoint!r})), m)",
    "first image": "pipe(num_inference_steps=50)",
}
ONNX = {
    "import": "import onnxruntime; from diffusers import DDIMPipeline, DDIMScheduler",
    "ready": "from pysdk import Plan; from benchmarks.peers import OnnxUnet, ddim_pipeline;"
    "p = Plan.open({plan!r}); pipe = ddim_pipeline(OnnxUnet(p, threads={threads}), p.manifest)",
    "first image": "pipe(num_inference_steps=50)",
}
STAGES = list(OURS)


@pytest.mark.benchmark(group="A new process, until ...")
@pytest.mark.parametrize("stage", STAGES)
def test_startup(benchmark: BenchmarkFixture, workload: Workload, seconds: float, stage: str) -> None:
    peers = {"torch eager": process(TORCH, stage, workload), "onnxruntime": process(ONNX, stage, workload)}
    is_first = stage == STAGES[0]
    if is_first:
        peers["bare Python"] = process({stage: "pass"}, stage, workload)
    ours = process(OURS, stage, workload)
    # only the first stage warms up, that is, fills the file cache
    interleave(benchmark, ours, peers, seconds=seconds, rounds=(2, 5), warm_up=is_first, work=stage, unit="s")


def process(stages: dict[str, str], last: str, workload: Workload) -> Callable[[], object]:
    """A call that runs the stages up to `last` in a new Python and waits for its end."""
    until = list(stages)[: list(stages).index(last) + 1]
    code = "; ".join(stages[stage] for stage in until).format(
        plan=str(workload.path.resolve()), checkpoint=str(workload.checkpoint.resolve()), threads=workload.threads
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(workload.threads)}
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
