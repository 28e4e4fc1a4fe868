"""Loading a network and running one step, each engine in a new process: time until ready, and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleave import Work, interleave
from benchmarks.networks import Networks
from benchmarks.workload import ROOT

BATCH = 16
ROUNDS = 5

UNITS = {"ready": "ms", "peak": "MB"}
TITLES = {"ready": "From the file until ready, imports not counted", "peak": "Peak resident memory of a process"}


class Processes:
    """What every process reported, by engine."""

    def __init__(self, networks: Networks, threads: int) -> None:
        network = networks.network("cifar10")
        self.sources = {
            "pysdk": networks.plan("cifar10", BATCH),
            "onnxruntime": network.onnx,
            "OpenVINO latency": network.onnx,
        }
        self.sources["torch eager"] = network.source
        if find_spec("openvino") is None:
            del self.sources["OpenVINO latency"]
        self.threads = threads
        self.reports: dict[str, list[dict[str, float]]] = {name: [] for name in self.sources}

    def run(self, name: str) -> Work:
        """A call that runs one process to its end."""
        source: Path = self.sources[name]
        sizes = f"--batch={BATCH}", f"--threads={self.threads}"
        command = [sys.executable, "-m", "benchmarks.fresh_process", name, str(source.resolve()), *sizes]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}

        def work() -> None:
            done = subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
            self.reports[name].append(json.loads(done.stdout))

        return work

    def values(self, name: str, what: str) -> list[float]:
        """One of the numbers, but for the first round, which warmed up."""
        return [report[what] for report in self.reports[name][1:]]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("what", UNITS)
def test_fresh_process(
    benchmark: BenchmarkFixture, networks: Networks, threads: int, seconds: float, what: str
) -> None:
    processes = Processes(networks, threads)
    ours, *others = processes.sources
    benchmark.group = TITLES[what]
    interleave(
        benchmark,
        processes.run(ours),
        {name: processes.run(name) for name in others},
        seconds=seconds,
        rounds=(2, ROUNDS),
        work=f"CIFAR-10 network, batch {BATCH}",
        unit=UNITS[what],
    )
    peers = {name: processes.values(name, what) for name in others}
    benchmark.extra_info.update(ours=processes.values(ours, what), peers=peers)
