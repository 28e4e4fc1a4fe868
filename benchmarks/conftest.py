"""Options, the workload and the report of every benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import environment, table
from benchmarks.networks import Networks
from benchmarks.workload import CHECKPOINT, Workload, find_plan
from pysdk.machine.processors import default_threads

RESULTS = pytest.StashKey[list[Any]]()  # pytest-benchmark's, which have no types


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pysdk")
    group.addoption("--plan", type=Path, help="plan to run; by default engine.plan, or one built from the checkpoint")
    group.addoption("--checkpoint", type=Path, default=CHECKPOINT, help="checkpoint folder the plan was built from")
    group.addoption("--threads", type=int, default=default_threads(), help="threads of every engine and peer")
    group.addoption("--images", type=int, default=64, help="images of the end-to-end comparison")
    group.addoption("--small", action="store_true", help="networks of a quarter of the channels, to try it out")
    group.addoption("--large", action="store_true", help="also the CelebA-HQ 256 network, for minutes")
    group.addoption("--compiled", action="store_true", help="also torch.compile, which compiles for minutes")
    group.addoption("--seconds", type=float, default=8.0, help="about how long one ordinary comparison measures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("default"))  # peers may use what is deprecated


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = []


@pytest.fixture(scope="session")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Threads for every engine and peer; torch is held to them."""
    count, before = request.config.getoption("--threads"), torch.get_num_threads()
    torch.set_num_threads(count)
    with torch.no_grad():
        yield count
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(request: pytest.FixtureRequest) -> Path:
    """The folder the plan was built from."""
    folder: Path = request.config.getoption("--checkpoint")
    if not (folder / "model.json").is_file():
        raise pytest.UsageError(f"there is no checkpoint in {folder}; name one with --checkpoint")
    return folder


@pytest.fixture(scope="session")
def workload(request: pytest.FixtureRequest, checkpoint: Path, threads: int) -> Workload:
    """The plan with its first engine."""
    return Workload.open(find_plan(request.config.getoption("--plan"), checkpoint), checkpoint, threads)


@pytest.fixture(scope="session")
def networks(request: pytest.FixtureRequest, checkpoint: Path, threads: int) -> Networks:
    """Other networks, by name."""
    return Networks(checkpoint, threads, small=request.config.getoption("--small"))


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """How long to measure an ordinary comparison."""
    return float(request.config.getoption("--seconds"))


@pytest.fixture
def images(request: pytest.FixtureRequest) -> int:
    """How many images to draw end to end."""
    return int(request.config.getoption("--images"))


@pytest.fixture(autouse=True)
def _collect(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    benchmark = request.node.funcargs.get("benchmark")
    if benchmark is not None and benchmark.stats is not None:
        request.config.stash[RESULTS].append(benchmark.stats)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Versions and threads instead of the machine's name."""
    environment.complete(machine_info, config.getoption("--threads"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Ours beside the peers, which pytest-benchmark's own table does not show."""
    results = [result.as_dict(include_data=True) for result in config.stash[RESULTS]]
    if results:
        terminalreporter.section("pysdk beside its peers")
        terminalreporter.write(table.render(results))
