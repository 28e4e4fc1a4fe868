"""What an engine offers. Its module in this folder, whose name is the engine's `kind` in a plan, has these functions:

    def unusable(info: EngineInfo) -> str | None
        Why this machine cannot run such an engine, or None if it can. A command in it may say PLAN for the plan's path.
    def load(model: ModelInfo, info: EngineInfo, member: memoryview, threads: int, *data: memoryview,
             budget: Budget | None = None, trust: bool = False) -> Engine
        The engine in the file `info.member`, ready to be bound to chains; `data` are the files of `info.data`, which
        have to be harmless whatever they hold, such as weights: their checksums are verified while they are loaded.
        Its memory is taken from `budget`; with `trust` it runs what could compute forever. Raises EngineError and
        MemoryLimitError.
    def cost(model: ModelInfo, info: EngineInfo, member: memoryview, threads: int, *data: memoryview) -> Cost
        What is known of it before it is loaded. Raises EngineError. It may read only the sizes of `data`.

So `EngineOnCpu`. One that runs on CUDA devices, an `EngineOnDevice`, has `DEVICE = "cuda"` and, for one device each:

    def unusable(info: EngineInfo, device: int) -> str | None
    def load(model: ModelInfo, info: EngineInfo, member: memoryview, device: int, *data: memoryview) -> DeviceEngine
        The device of this number is the current one meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pysdk.engines.cost import Cost
from pysdk.machine.memory import Budget
from pysdk.plan.manifest import EngineInfo, ModelInfo

if TYPE_CHECKING:
    from pysdk import _native


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
    """What a module of this folder offers whose engine runs on the CPU."""

    def unusable(self, info: EngineInfo) -> str | None:
        """Why this machine cannot run it, or None."""

    def cost(self, model: ModelInfo, info: EngineInfo, member: memoryview, threads: int, *data: memoryview) -> Cost:
        """What it takes."""

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
    """What a module of this folder offers whose engine runs on CUDA devices, which are named by their numbers."""

    DEVICE: str

    def unusable(self, info: EngineInfo, device: int) -> str | None:
        """Why this device cannot run it, or None."""

    def load(
        self, model: ModelInfo, info: EngineInfo, member: memoryview, device: int, *data: memoryview
    ) -> DeviceEngine:
        """The loaded engine; the device is the current one meanwhile."""
