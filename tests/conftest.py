"""Two tiny random U-Nets, lowered once for all tests.

"conditional" has everything: 3 classes, a null label, attention, a learned variance, 1000 timesteps. "unconditional" is
the other way round: colour, pooling, scale and shift, fixed variance, v-prediction, 100 timesteps. Images are 8x8.
"""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from kit.places import MODEL
from kit.tiny_networks import save_random_unet

from pysdk import Plan, Sampler
from pysdk.plan.writer import write_plan

# a job started in the background ignores Ctrl-C, and so would the processes that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def ctrl_c_as_before() -> Iterator[None]:
    """A command that is run in this process, and interrupted, is deaf to Ctrl-C afterwards, as at its end."""
    hook = sys.unraisablehook
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.unraisablehook = hook


@pytest.fixture(scope="session")
def conditional_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditional")
    return save_random_unet(folder, num_classes=3, null_label=True, learn_variance=True)


@pytest.fixture(scope="session")
def unconditional_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_unet(
        tmp_path_factory.mktemp("unconditional"),
        timesteps=100,
        schedule="cosine",
        prediction_type="v_prediction",
        image_shape=(3, 8, 8),
        attention_levels=(),
        resample="pool",
        scale_shift_norm=True,
    )


@pytest.fixture(scope="session")
def conditional_plan(conditional_checkpoint: Path) -> Path:
    return lowered(conditional_checkpoint)


@pytest.fixture(scope="session")
def unconditional_plan(unconditional_checkpoint: Path) -> Path:
    return lowered(unconditional_checkpoint)


@pytest.fixture(scope="session")
def shipped_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model as `pysdk build` makes it, but for the time it takes to check more than two timesteps."""
    from pysdk.export.build_engine import build

    plan = tmp_path_factory.mktemp("shipped") / "engine.plan"
    build(MODEL, plan, check_seconds=0)
    return plan


def lowered(checkpoint: Path) -> Path:
    from pysdk.export.build_engine import build

    # all timesteps are checked, however slow the machine is
    build(checkpoint, checkpoint / "engine.plan", solver="ddim", steps=50, batch_size=4, check_seconds=1e6)
    return checkpoint / "engine.plan"


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
