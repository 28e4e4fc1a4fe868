"""Two tiny random U-Nets, lowered once for all tests.

"conditional" has everything: 3 classes, a null label, attention, a learned variance, 1000 timesteps. "unconditional" is
the other way round: colour, pooling, scale and shift, fixed variance, v-prediction, 100 timesteps. Images are 8x8.
"""

import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from kit.packages import missing
from kit.places import MODEL
from kit.sharing import make_once
from kit.tiny_networks import one_thread, save_random_unet

from pysdk import Plan, Sampler
from pysdk.plan.writer import write_plan

# a job started in the background ignores Ctrl-C, and so would the processes that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Skip a module that imports a package of an extra which is not installed."""
    report = yield
    return skipped_if_missing(report, report.call.excinfo, collector)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Skip a test that needs one, itself or in a fixture."""
    return skipped_if_missing((yield), call.excinfo, item)


def skipped_if_missing(report: Any, excinfo: Any, node: pytest.Item | pytest.Collector) -> Any:
    name = missing(excinfo.value) if excinfo is not None else None
    if name is not None:
        report.outcome, report.longrepr = "skipped", (str(node.path), 1, f"Skipped: {name} is not installed")
    return report


@pytest.fixture(autouse=True)
def ctrl_c_as_before() -> Iterator[None]:
    """A command that is run in this process, and interrupted, is deaf to Ctrl-C afterwards, as at its end."""
    hook = sys.unraisablehook
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.unraisablehook = hook


@pytest.fixture(scope="session")
def conditional_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one_thread()

    def make(folder: Path) -> None:
        save_random_unet(folder, num_classes=3, null_label=True, learn_variance=True)

    return make_once(tmp_path_factory, "conditional", make)


@pytest.fixture(scope="session")
def unconditional_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one_thread()

    def make(folder: Path) -> None:
        save_random_unet(
            folder,
            timesteps=100,
            schedule="cosine",
            prediction_type="v_prediction",
            image_shape=(3, 8, 8),
            attention_levels=(),
            resample="pool",
            scale_shift_norm=True,
        )

    return make_once(tmp_path_factory, "unconditional", make)


@pytest.fixture(scope="session")
def conditional_plan(conditional_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(conditional_checkpoint, tmp_path_factory)


@pytest.fixture(scope="session")
def unconditional_plan(unconditional_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(unconditional_checkpoint, tmp_path_factory)


def lowered(checkpoint: Path, factory: pytest.TempPathFactory) -> Path:
    from pysdk.export.build import build

    def make(folder: Path) -> None:
        # all timesteps are checked, however slow the machine is
        build(checkpoint, folder / "engine.plan", solver="ddim", steps=50, batch_size=4, check_seconds=1e6)

    return make_once(factory, f"{checkpoint.name}-plan", make) / "engine.plan"


@pytest.fixture(scope="session")
def shipped_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model as `pysdk build` makes it, but for the time it takes to check more than two timesteps."""
    from pysdk.export.build import build

    def make(folder: Path) -> None:
        build(MODEL, folder / "engine.plan", check_seconds=0)

    return make_once(tmp_path_factory, "shipped-plan", make) / "engine.plan"


@pytest.fixture(scope="session")
def conditional(conditional_plan: Path) -> Iterator[Sampler]:
    with Sampler(conditional_plan, threads=1) as sampler:
        yield sampler


@pytest.fixture(scope="session")
def unconditional(unconditional_plan: Path) -> Iterator[Sampler]:
    with Sampler(unconditional_plan, threads=1) as sampler:
        yield sampler


@pytest.fixture(scope="session")
def padded_plan(conditional_plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conditional plan, its engine flagged as one whose bits depend on the batch."""
    path = tmp_path_factory.mktemp("padded") / "engine.plan"
    with Plan.open(conditional_plan) as plan:
        engines = tuple(msgspec.structs.replace(engine, batch_invariant=False) for engine in plan.manifest.engines)
        manifest = msgspec.structs.replace(plan.manifest, engines=engines)
        write_plan(path, manifest, {name: plan.member(name) for name in plan.manifest.members})
    return path


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Five 8x8 pictures, uint8 (5, 8, 8, 1)."""
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
