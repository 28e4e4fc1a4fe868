"""Engines: one file each in this folder, found by its name, which is the engine's `kind` in a plan.

An engine's module has these functions:

    def unusable(info: EngineInfo) -> str | None
        Why this machine cannot run such an engine, or None if it can. A command in it may say PLAN for the plan's path.
    def load(model: ModelInfo, info: EngineInfo, member: memoryview, threads: int, *data: memoryview) -> Engine
        The engine in the file `info.member`, ready to be bound to chains; `data` are the files of `info.data`, which
        have to be harmless whatever they hold, such as weights: their checksums are verified while they are loaded.
        Raises EngineError. One on the CPU also gets `budget=`, a `pysdk.runtime.memory.Budget` that its memory is taken
        from, and raises MemoryLimitError; with `trust=True` it runs what could compute for ever.
    def cost(model: ModelInfo, info: EngineInfo, member: memoryview, threads: int, *data: memoryview) -> Cost
        On the CPU: what is known of it before it is loaded. Raises EngineError. Of `data` it may read the sizes alone.

One that runs on CUDA devices also has `DEVICE = "cuda"`. Its `unusable` gets the device's number too; its `load` gets
it in the place of threads, while that device is the current one, and returns a `DeviceEngine`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import EngineError, MissingDependencyError
from pysdk.plan.cost import Cost
from pysdk.plan.manifest import ClassifierInfo, EngineInfo, ModelInfo
from pysdk.plan.reader import Plan
from pysdk.runtime.memory import Budget

if TYPE_CHECKING:
    from pysdk import _native

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
    """A network that is ready to run; safe to bind and call from several threads.

    It may have `memory(images)`, the bytes that binding it for so many images takes beside what loading it took.
    """

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


class DeviceBuffers(Protocol):
    """The network's side of a device chain: as `Buffers`, in device memory (`_native.CudaChain` has it)."""

    @property
    def network_input(self) -> _native.DeviceArray:
        """float32 (NB, C, H, W), to be read."""

    @property
    def network_time(self) -> _native.DeviceArray:
        """float32 (1,), to be read."""

    @property
    def network_labels(self) -> _native.DeviceArray:
        """int64 (NB,), to be read if the network takes labels."""

    @property
    def network_output(self) -> _native.DeviceArray:
        """float32 (NB, out_channels, H, W), to be filled."""


class DeviceEngine(Protocol):
    """A network that runs on a device; safe to bind from several threads.

    It may have `memory`, the bytes of device memory that what it bound holds, and `status`, a clause for people, which
    are then in `Sampler.info`.
    """

    @property
    def description(self) -> str:
        """One line for people."""

    def bind(self, buffers: DeviceBuffers) -> Callable[[int], object]:
        """The network on these buffers: a call with the handle of a CUDA stream enqueues one run there.

        The device is the current one while this and the result are called. The result is called once outside and once
        inside a capture, which it must bear: no synchronisation, no memory from outside a pool of its own. False, or
        an exception, is a failure.
        """


class EngineModule(Protocol):
    """What a file of this folder offers."""

    def unusable(self, info: EngineInfo, *number: int) -> str | None:
        """Why this machine, or its device of this number, cannot run it, or None."""

    def cost(self, model: ModelInfo, info: EngineInfo, member: memoryview, threads: int, *data: memoryview) -> Cost:
        """What it takes; only of engines on the CPU."""

    def load(
        self, model: ModelInfo, info: EngineInfo, member: memoryview, threads: int, *data: memoryview, **limits: Any
    ) -> Any:
        """The loaded engine: an `Engine`, or a `DeviceEngine` on the device of number `threads`."""


def kinds() -> list[str]:
    """The engines this pysdk knows."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def module(kind: str) -> EngineModule:
    """The engine's module. EngineError if there is none of that kind; a plan cannot name any other file."""
    if kind not in kinds():
        raise EngineError(f"there is no engine {kind!r}; this pysdk has {', '.join(kinds())}")
    return cast(EngineModule, importlib.import_module(f"{__name__}.{kind}"))


def home(kind: str) -> str | None:
    """Where such an engine runs: "cpu" or "cuda"; None if this pysdk does not know it."""
    return getattr(module(kind), "DEVICE", "cpu") if kind in kinds() else None


def of_classifier(classifier: ClassifierInfo, batch_size: int = 1) -> EngineInfo:
    """The engine that runs a plan's classifier."""
    return EngineInfo(kind="onnxruntime", member=classifier.member, precision="float32", batch_size=batch_size)


def load(plan: Plan, info: EngineInfo, threads: int, budget: Budget | None = None, *, trust: bool = False) -> Any:
    """An engine of a plan with the files it needs; `threads` is a device's number for one that runs there.

    `budget`, of an engine on the CPU, is what its memory is taken from; `trust` lets it run what could compute
    for ever. Raises EngineError, MemoryLimitError, PlanError.
    """
    limits: dict[str, Any] = {"budget": budget} if budget is not None else {}
    if trust and home(info.kind) == "cpu":
        limits["trust"] = True
    loader, member = module(info.kind), plan.member(info.member)
    with plan.verifying(info.data) as data:
        return loader.load(plan.manifest.model, info, member, threads, *data, **limits)


def choose(plan: Plan, kind: str | None = None, *, device: int | None = None) -> tuple[EngineInfo, dict[str, str]]:
    """The first engine of a plan that runs on this machine, and why each one before it does not.

    Args:
        plan: an open plan; its engines are listed best first.
        kind: take this engine or none.
        device: number of the CUDA device to run on; None for the CPU.

    Raises:
        EngineError: no engine of the plan runs there; the message says why for each.
    """
    skipped: dict[str, str] = {}
    for info in plan.manifest.engines:
        if kind is not None and info.kind != kind:
            continue
        reason = _unusable(info, device)
        if reason is None:
            return info, skipped
        skipped[info.kind] = reason.replace("PLAN", shlex.quote(str(plan.path)))
    wanted = f"no engine {kind!r}" if kind else "no engine"
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items()) or (
        f"it has {', '.join(info.kind for info in plan.manifest.engines) or 'none at all'}"
    )
    where, advice = "on this machine", "build it again here with `pysdk build`"
    if device is not None:
        where, advice = "on a CUDA device", "give one with network=, or use device='cpu'"
    elif {home(name) for name in skipped} == {"cuda"}:
        where, advice = "on the CPU", "use device='cuda'"
    raise EngineError(f"plan {str(plan.path)!r} has {wanted} that runs {where} ({reasons}); {advice}")


def _unusable(info: EngineInfo, device: int | None) -> str | None:
    where = home(info.kind)
    if where is None:
        return "this pysdk does not know it"
    if where == "cuda":
        return "it runs on a CUDA device" if device is None else module(info.kind).unusable(info, device)
    return module(info.kind).unusable(info) if device is None else "it runs on the CPU"


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
