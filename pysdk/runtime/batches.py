"""What chains on every device share: requests in batches, idle chains, previews, and errors about bad images."""

from __future__ import annotations

import math
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pysdk import _native
from pysdk.checks import check_tensor
from pysdk.engines.contract import DeviceEngine, Engine
from pysdk.errors import EngineError, MemoryLimitError, NumericalError, OptionError
from pysdk.images import Output, in_form
from pysdk.machine.memory import Budget
from pysdk.plan.manifest import ModelInfo
from pysdk.progress import Progress, reporter
from pysdk.request.request import Request
from pysdk.runtime.deadline import Deadline, told

Float: TypeAlias = NDArray[np.float32]
ChainT = TypeVar("ChainT", _native.Chain, _native.CudaChain)
EngineT = TypeVar("EngineT", Engine, DeviceEngine)
_Result = TypeVar("_Result")

UPDATE_SECONDS = 0.1
"""How often progress is reported."""

MAX_BATCH = 65_536
"""Images in one network call."""

_IDLE_CHAINS = 4
"""Chains kept for the next call, with their buffers and bindings."""


@dataclass(frozen=True)
class Kind:
    """What a chain is made for."""

    batch: int
    guided: bool = False
    alone: bool = False
    """Rows without guidance run the conditional half alone."""
    classifier: bool = False


@dataclass(frozen=True)
class Preview:
    """A chain on its way.

    Attributes:
        step: rows done so far, 1..total.
        total: rows of the chain.
        timestep: what the network was told in the last row: a timestep, ln(sigma)/4 or sigma for networks of sigma.
        x: the current samples, in the output form asked for.
        denoised: the network's (clipped) estimate of the final images at that row, likewise.
    """

    step: int
    total: int
    timestep: float
    x: Any
    denoised: Any


class Closed:
    """Stands in for the engine of a closed executor."""

    description = "closed"

    def bind(self, buffers: object) -> NoReturn:
        """EngineError."""
        raise EngineError("this sampler is closed; open the plan again with Sampler(path)")


class Executor(ABC, Generic[EngineT, ChainT]):
    """Runs requests on chains of one device and a loaded engine; safe to use from several threads at once.

    Args:
        model: what the network is.
        engine: the network, loaded.
        batch_size: largest number of images in one network call.
        batch_invariant: whether every engine gives an image the same bits in any smaller batch. If not, every call runs
            at the same size and the last one is padded.
        budget: what the host's memory is taken from; None for one of its own.
    """

    def __init__(
        self,
        model: ModelInfo,
        engine: EngineT,
        *,
        batch_size: int,
        batch_invariant: bool,
        budget: Budget | None = None,
    ) -> None:
        self.model = model
        self.engine: EngineT | Closed = engine
        self.batch_size = batch_size
        self.batch_invariant = batch_invariant
        self.budget = Budget() if budget is None else budget
        self._idle: list[tuple[Kind, ChainT]] = []
        self._lock = threading.Lock()
        self._process = os.getpid()

    @property
    @abstractmethod
    def chain_description(self) -> str:
        """Where chains run, in one line for people."""

    @abstractmethod
    def _new_chain(self, kind: Kind) -> ChainT:
        """A chain with its networks."""

    @abstractmethod
    def advance(
        self, chain: ChainT, until: int, report: Callable[[int], object] | None, deadline: Deadline | None = None
    ) -> None:
        """Run rows up to `until`, and report how many were done now and then."""

    @abstractmethod
    def _samples(self, chain: ChainT, count: int) -> Float:
        """x of the first `count` images, on the host."""

    @abstractmethod
    def previews(
        self, request: Request, every: int, deadline: Deadline | None = None
    ) -> Iterator[tuple[int, Float, Float]]:
        """(rows done, x, denoised) after every `every` rows and after the last; all images advance side by side.

        What can be refused is refused by the call, not by the first item.
        """

    def close(self) -> None:
        """Let go of the engine and the idle chains; using the executor afterwards raises EngineError."""
        with self._lock:
            self._idle.clear()
            self.engine = Closed()

    def run(self, request: Request, progress: Progress = None, deadline: Deadline | None = None) -> Float:
        """All images of a request, float32 (n, C, H, W), on the host.

        Raises:
            NumericalError: the network returned NaN or infinity.
            EngineError: the network failed, or this is a forked child of the process that loaded it.
            DeviceError: the device failed.
            DeadlineError: the time was up before they were done.
        """
        result = np.empty((len(request), *self.model.shape), np.float32)
        for part, chain in self._finished_batches(request, progress, deadline):
            result[part] = self._samples(chain, part.stop - part.start)
        check_finite(result, request)
        return result

    def images(
        self, request: Request, output: Output, progress: Progress = None, deadline: Deadline | None = None
    ) -> Any:
        """All images of a request in the form of `output`. The errors are those of `run`."""
        return in_form(self.run(request, progress, deadline), output, self.model.value_range)

    def open_engine(self) -> EngineT:
        """The engine. EngineError if the executor is closed."""
        if isinstance(self.engine, Closed):
            self.engine.bind(None)
        return self.engine

    def require_own_process(self) -> None:
        """EngineError in a forked child of the process that loaded the engine."""
        if os.getpid() != self._process:
            raise EngineError(
                "this sampler was made before the process forked, and the threads of its engine are not in the child; "
                "make the Sampler in the child, or start processes with multiprocessing's 'spawn'"
            )

    def _finished_batches(
        self, request: Request, progress: Progress, deadline: Deadline | None
    ) -> Iterator[tuple[slice, ChainT]]:
        """Which images a chain has run to the end, and the chain, which goes back when the next is asked for."""
        batches = self._batches(request)
        with reporter(progress, len(batches) * len(request.table)) as report:
            for part, kind in batches:
                with self._chain(kind) as chain:
                    self._begin(chain, request, part)
                    with told(deadline, part.start, len(request), chain):
                        self.advance(chain, len(request.table), report, deadline)
                    yield part, chain

    def _batches(self, request: Request) -> list[tuple[slice, Kind]]:
        """Which images run together, and on what chain; only the last batch is smaller, or padded. The first check."""
        self.require_own_process()
        guided = request.guidance is not None
        size = self.batch_size // 2 if guided else self.batch_size
        if size == 0:
            raise OptionError("batch_size is 1, but guidance runs every image twice in one call; use 2 or more")
        alone = guided and self.batch_invariant and bool(request.table.column("unguided").any())
        # the images as the chain has them, and as they are returned
        images = 2 * 4 * len(request) * math.prod(self.model.shape)
        self._making_room(lambda: self.budget.check(images, f"{len(request)} images need"))
        parts = [slice(i, min(i + size, len(request))) for i in range(0, len(request), size)]
        return [
            (
                part,
                Kind(
                    batch=part.stop - part.start if self.batch_invariant else size,
                    guided=guided,
                    alone=alone,
                    classifier=request.classifier_scale is not None,
                ),
            )
            for part in parts
        ]

    def _making_room(self, spend: Callable[[], _Result]) -> _Result:
        """`spend()`, where the memory is short once more without the idle chains."""
        try:
            return spend()
        except MemoryLimitError:
            with self._lock:
                self._idle.clear()
            return spend()

    @contextmanager
    def _chain(self, kind: Kind) -> Iterator[ChainT]:
        """A chain for one thread to use, from the idle ones if one fits."""
        with self._lock:
            engine = self.engine
            index = next((i for i, (found, _) in enumerate(self._idle) if found == kind), None)
            chain = None if index is None else self._idle.pop(index)[1]
        if chain is None:
            chain = self._new_chain(kind)
        yield chain
        # not after an error: a chain that failed is dropped with its buffers
        with self._lock:
            if self.engine is engine:  # not closed meanwhile
                self._idle.append((kind, chain))
                del self._idle[:-_IDLE_CHAINS]

    def _begin(self, chain: ChainT, request: Request, part: slice) -> None:
        """Hand the images `part` of the request to a chain, padded to its batch by repeating the last."""
        batch = chain.x.shape[0]
        index = np.minimum(np.arange(part.start, part.start + batch), part.stop - 1)
        noise, null_label = request.noise, self.model.null_label

        def draw(number: int) -> Float:
            if not callable(noise):
                assert noise is not None
                return np.ascontiguousarray(noise[number, index])
            drawn = noise(number, request.images[index])
            check_tensor(f"what noise returned for draw {number}", drawn, (batch, *self.model.shape))
            return np.ascontiguousarray(drawn)

        chain.begin(
            request.table.native,
            **request.of(index),
            null_label=-1 if null_label is None else null_label,
            noise=None if noise is None else draw,
        )


def check_finite(x: Float, request: Request) -> None:
    """NumericalError if an image holds NaN or infinity."""
    finite = np.isfinite(x).all(axis=(1, 2, 3))
    if not finite.all():
        raise diverged(request, int(np.argmin(finite)))


def diverged(request: Request, index: int) -> NumericalError:
    """What to raise when image `index` of a request came out NaN or infinite."""
    return NumericalError(
        f"image {int(request.images[index])} became NaN or infinite in {len(request.table)} rows: the "
        "network or the step table diverges on it; try another solver, more steps or a clip"
    )
