"""Engines: one file each in this folder, found by its name, which is the engine's `kind` in a plan.

An engine on the CPU is a module with two functions, an `EngineOnCpu`:

    def unusable(info: EngineInfo) -> str | None
        Why this machine cannot run such an engine, or None if it can. A command in it may say PLAN for the plan's path.
    def load(model: ModelInfo, info: EngineInfo, member: memoryview, threads: int, *data: memoryview,
             budget: Budget | None = None, trust: bool = False) -> Engine
        The engine in the file `info.member`, ready to be bound to chains; `data` are the files of `info.data`, which
        have to be harmless whatever they hold, such as weights: their checksums are verified while they are loaded.
        Its memory is taken from `budget`; with `trust` it runs what could compute for ever. Raises EngineError and
        MemoryLimitError.

An engine on CUDA devices is an `EngineOnDevice`, with `DEVICE = "cuda"` and the same functions for one device:

    def unusable(info: EngineInfo, device: int) -> str | None
    def load(model: ModelInfo, info: EngineInfo, member: memoryview, device: int, *data: memoryview) -> DeviceEngine
        The device of this number is the current one meanwhile.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import shlex
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import EngineError, MissingDependencyError
from pysdk.plan.manifest import EngineInfo, ModelInfo
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


class EngineOnCpu(Protocol):
    """What a file of this folder offers whose engine runs on the CPU."""

    def unusable(self, info: EngineInfo) -> str | None:
        """Why this machine cannot run it, or None."""

    def load(
        self,
        model: ModelInfo,
        info: EngineInfo,
        member: memoryview,
        threads: int,
        *data: memoryview,
        budget: Budget | None = None,
        trust: bool = False,
    ) -> Engine:
        """The loaded engine."""


class EngineOnDevice(Protocol):
    """What a file of this folder offers whose engine runs on CUDA devices, which are named by their numbers."""

    DEVICE: str

    def unusable(self, info: EngineInfo, device: int) -> str | None:
        """Why this device cannot run it, or None."""

    def load(
        self, model: ModelInfo, info: EngineInfo, member: memoryview, device: int, *data: memoryview
    ) -> DeviceEngine:
        """The loaded engine; the device is the current one meanwhile."""


def kinds() -> list[str]:
    """The engines this pysdk knows."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def home(kind: str) -> str | None:
    """Where such an engine runs: "cpu" or "cuda"; None if this pysdk does not know it."""
    return getattr(_module(kind), "DEVICE", "cpu") if kind in kinds() else None


def on_cpu(kind: str) -> EngineOnCpu:
    """The module of an engine on the CPU. EngineError if there is none of that kind."""
    return cast(EngineOnCpu, _module(kind, "cpu"))


def on_device(kind: str) -> EngineOnDevice:
    """The module of an engine on CUDA devices. EngineError if there is none of that kind."""
    return cast(EngineOnDevice, _module(kind, "cuda"))


def load(plan: Plan, info: EngineInfo, threads: int, budget: Budget | None = None, *, trust: bool = False) -> Engine:
    """An engine of a plan on the CPU, with the files it needs.

    `budget` is what its memory is taken from; `trust` lets it run what could compute for ever. Raises EngineError,
    MemoryLimitError, PlanError.
    """
    kind, member = on_cpu(info.kind), plan.member(info.member)
    with plan.verifying(info.data) as data:
        return kind.load(plan.manifest.model, info, member, threads, *data, budget=budget, trust=trust)


def load_on_device(plan: Plan, info: EngineInfo, device: int) -> DeviceEngine:
    """An engine of a plan on the device of this number, which is the current one. Raises EngineError, PlanError."""
    kind, member = on_device(info.kind), plan.member(info.member)
    with plan.verifying(info.data) as data:
        return kind.load(plan.manifest.model, info, member, device, *data)


def _module(kind: str, where: str | None = None) -> ModuleType:
    """A file of this folder, which a plan cannot name any other of. EngineError if it is none, or not for `where`."""
    if kind not in kinds():
        raise EngineError(f"there is no engine {kind!r}; this pysdk has {', '.join(kinds())}")
    found = importlib.import_module(f"{__name__}.{kind}")
    runs_on = getattr(found, "DEVICE", "cpu")
    if where not in (None, runs_on):
        raise EngineError(f"engine {kind!r} runs on {runs_on!r}, not on {where!r}; choose another for this device")
    return found


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
        return "it runs on a CUDA device" if device is None else on_device(info.kind).unusable(info, device)
    return on_cpu(info.kind).unusable(info) if device is None else "it runs on the CPU"


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
