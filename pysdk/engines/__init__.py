"""Engines: one file each in this folder, found by its name, which is the engine's `kind` in a plan.

An engine's module has two functions:

    def unusable(info: EngineInfo) -> str | None
        Why this machine cannot run such an engine, or None if it can.
    def load(model: ModelInfo, info: EngineInfo, member: memoryview, threads: int, *data: memoryview) -> Engine
        The engine in the file `info.member`, ready to be bound to chains; `data` are the files of `info.data`, which
        have to be harmless whatever they hold, such as weights: their checksums are verified while they are loaded.
        Raises EngineError.

One that runs on CUDA devices also has `DEVICE = "cuda"`; its `load` gets the device's number instead of threads, and
returns a `pysdk.cuda.executor.DeviceEngine`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Callable
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import EngineError, MissingDependencyError
from pysdk.manifest import EngineInfo, ModelInfo
from pysdk.plan import Plan

MAX_THREADS = 256
"""More than this the native chain does not take."""


class Buffers(Protocol):
    """The network's side of a chain: memory that stays where it is for the chain's life (`_native.Chain` has it)."""

    @property
    def network_input(self) -> NDArray[np.float32]:
        """float32 (NB, C, H, W), to be read."""

    @property
    def network_time(self) -> NDArray[np.float32]:
        """float32 (1,), to be read."""

    @property
    def network_labels(self) -> NDArray[np.int64]:
        """int64 (NB,), to be read if the network takes labels."""

    @property
    def network_output(self) -> NDArray[np.float32]:
        """float32 (NB, out_channels, H, W), to be filled."""


class Engine(Protocol):
    """A network that is ready to run; safe to bind and call from several threads."""

    @property
    def description(self) -> str:
        """One line for people: library, version, threads."""

    def bind(self, buffers: Buffers) -> Callable[[], object]:
        """The network on these buffers: each call reads the inputs and fills the output, with no copy between.

        A `_native.Denoiser` is a callable that a chain runs without Python.

        A call that fails raises EngineError, whose message is the reason in one line.

        The result holds addresses only. Whoever calls it keeps the buffers alive: a chain owns both, and a reference
        back to it would be a cycle that is never freed.
        """


class EngineModule(Protocol):
    """What a file of this folder offers."""

    def unusable(self, info: EngineInfo) -> str | None:
        """Why this machine cannot run it, or None."""

    def load(self, model: ModelInfo, info: EngineInfo, member: memoryview, threads: int, *data: memoryview) -> Engine:
        """The loaded engine."""


def kinds() -> list[str]:
    """The engines this pysdk knows."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def module(kind: str) -> EngineModule:
    """The engine's module. EngineError if there is none of that kind; a plan cannot name any other file."""
    if kind not in kinds():
        raise EngineError(f"there is no engine {kind!r}; this pysdk has {', '.join(kinds())}")
    return cast(EngineModule, importlib.import_module(f"{__name__}.{kind}"))


def load(plan: Plan, info: EngineInfo, threads: int) -> Engine:
    """An engine of a plan with the files it needs. Raises EngineError, PlanError."""
    loader, member = module(info.kind), plan.member(info.member)
    with plan.verifying(info.data) as data:
        return loader.load(plan.manifest.model, info, member, threads, *data)


def choose(plan: Plan, kind: str | None = None, *, device: str = "cpu") -> tuple[EngineInfo, dict[str, str]]:
    """The first engine of a plan that runs on this machine, and why each one before it does not.

    Args:
        plan: an open plan; its engines are listed best first.
        kind: take this engine or none.
        device: "cpu" or "cuda".

    Raises:
        EngineError: no engine of the plan runs here; the message says why for each.
    """
    skipped: dict[str, str] = {}
    for info in plan.manifest.engines:
        if kind is not None and info.kind != kind:
            continue
        reason = _unusable(info, device)
        if reason is None:
            return info, skipped
        skipped[info.kind] = reason
    wanted = f"no engine {kind!r}" if kind else "no engine"
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items()) or (
        f"it has {', '.join(info.kind for info in plan.manifest.engines) or 'none at all'}"
    )
    where, advice = ("on this machine", "build it again here with `pysdk build`")
    if device == "cuda":
        where, advice = "on a CUDA device", "give one with network=, or use device='cpu'"
    raise EngineError(f"plan {str(plan.path)!r} has {wanted} that runs {where} ({reasons}); {advice}")


def _unusable(info: EngineInfo, device: str) -> str | None:
    if info.kind not in kinds():
        return "this pysdk does not know it"
    home = getattr(module(info.kind), "DEVICE", "cpu")
    if home != device:
        return f"it runs on {'the CPU' if home == 'cpu' else 'a CUDA device'}"
    return module(info.kind).unusable(info)


def second(plan: Plan, chosen: EngineInfo) -> dict[str, str]:
    """Why the engines listed behind the chosen one are not taken."""
    engines = plan.manifest.engines
    reasons = {}
    for info in engines[engines.index(chosen) + 1 :]:
        reasons[info.kind] = f"comes after {chosen.kind} in the plan"
        if info.seconds_per_step and chosen.seconds_per_step:
            times = (1e3 * seconds for seconds in (info.seconds_per_step, chosen.seconds_per_step))
            reasons[info.kind] += ", {:.3g} ms per step against {:.3g} where it was built".format(*times)
    return reasons


def default_threads() -> int:
    """The processors this process may use, at most MAX_THREADS."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(found, MAX_THREADS)


def require(package: str, command: str) -> None:
    """MissingDependencyError with the command that installs it, unless the package can be imported."""
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(f"{package} is not installed; get it with `{command}`")
