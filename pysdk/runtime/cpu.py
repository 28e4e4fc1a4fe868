"""Executor: runs requests on the native chain and a loaded engine, batch after batch."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pysdk import _native
from pysdk.checks import check_tensor
from pysdk.engines.contract import Buffers, Engine
from pysdk.errors import EngineError, MemoryLimitError, NumericalError, OptionError
from pysdk.images import Output, in_form
from pysdk.machine.memory import Budget
from pysdk.plan.manifest import ModelInfo
from pysdk.progress import Progress, reporter
from pysdk.request.request import Request
from pysdk.runtime.deadline import Deadline, told

Float: TypeAlias = NDArray[np.float32]

_IDLE_CHAINS = 4
"""Chains kept for the next call, with their buffers and bindings."""

_Result = TypeVar("_Result")

_MOST_ROWS = 10_000
"""Of a table, for the memory of a chain that is kept for other tables; longer ones count for little."""

_UPDATE_SECONDS = 0.1
"""How often progress is reported."""


@dataclass(frozen=True)
class Kind:
    """What a chain is made for."""

    batch: int
    guided: bool = False
    alone: bool = False
    """Rows without guidance run the conditional half alone."""
    classifier: bool = False


class _Half:
    """The conditional half of a chain's network buffers, which comes first; see `pysdk.engines.contract.Buffers`."""

    def __init__(self, chain: _native.Chain, output: Float) -> None:
        batch = len(chain.x)
        self.network_input = chain.network_input[:batch]
        self.network_time = chain.network_time
        self.network_labels = chain.network_labels[:batch]
        self.network_output = output[:batch]


class _Closed:
    """In the place of the engine of a closed executor."""

    description = "closed"

    def bind(self, buffers: Buffers) -> Callable[[], object]:
        raise EngineError("this sampler is closed; open the plan again with Sampler(path)")


class Executor:
    """Runs requests; safe to use from several threads at once.

    Args:
        model: what the network is.
        engine: the network, loaded.
        classifier: the classifier's gradient, loaded, or None.
        batch_size: largest number of images in one network call.
        batch_invariant: whether every engine gives an image the same bits in any smaller batch. If not, every call runs
            at the same size and the last one is padded.
        threads: of the update.
        budget: what the memory of chains is taken from; None for one of its own.
    """

    def __init__(
        self,
        model: ModelInfo,
        engine: Engine,
        classifier: Engine | None,
        *,
        batch_size: int,
        batch_invariant: bool,
        threads: int,
        budget: Budget | None = None,
    ) -> None:
        self.model = model
        self.engine = engine
        self.classifier = classifier
        self.batch_size = batch_size
        self.batch_invariant = batch_invariant
        self.threads = threads
        self.budget = Budget() if budget is None else budget
        self._idle: list[tuple[Kind, _native.Chain]] = []
        self._lock = threading.Lock()
        self._process = os.getpid()

    @property
    def chain_description(self) -> str:
        """Where chains run, in one line for people."""
        return f"CPU, {_native.isa()}"

    def close(self) -> None:
        """Let go of the engine and the idle chains; using the executor afterwards raises EngineError."""
        with self._lock:
            self._idle.clear()
            self.engine = _Closed()
            self.classifier = None

    def run(self, request: Request, progress: Progress = None, deadline: Deadline | None = None) -> Float:
        """All images of a request, float32 (n, C, H, W).

        Raises:
            NumericalError: the network returned NaN or infinity.
            EngineError: the network failed, or this is a forked child of the process that loaded it.
            DeadlineError: the time was up before they were done.
        """
        batches = self._batches(request)
        result = np.empty((len(request), *self.model.shape), np.float32)
        with reporter(progress, len(batches) * len(request.table)) as report:
            for part, kind in batches:
                with self._chain(kind) as chain:
                    self._begin(chain, request, part)
                    with told(deadline, part.start, len(request), chain):
                        self.advance(chain, len(request.table), report, deadline)
                    result[part] = chain.x[: part.stop - part.start]
        check_finite(result, request)
        return result

    def images(
        self, request: Request, output: Output, progress: Progress = None, deadline: Deadline | None = None
    ) -> Any:
        """All images of a request in the form of `output`. The errors are those of `run`."""
        return in_form(self.run(request, progress, deadline), output, self.model.value_range)

    def previews(
        self, request: Request, every: int, deadline: Deadline | None = None
    ) -> Iterator[tuple[int, Float, Float]]:
        """(rows done, x, denoised) after every `every` rows and after the last; all images advance side by side.

        What can be refused is refused by the call, not by the first item.
        """
        chains = []
        for part, kind in self._batches(request):
            chain = self._new_chain(kind)
            self._begin(chain, request, part)
            chains.append((chain, part.stop - part.start))
        return self._side_by_side(request, chains, every, deadline)

    def _side_by_side(
        self, request: Request, chains: list[tuple[_native.Chain, int]], every: int, deadline: Deadline | None
    ) -> Iterator[tuple[int, Float, Float]]:
        """Advance chains, each with its number of images."""
        total, step = len(request.table), 0
        while chains and step < total:
            step = min(step + every, total)
            for chain, _ in chains:
                with told(deadline, 0, len(request), chain):
                    self.advance(chain, step, None, deadline)
            x = np.concatenate([chain.x[:count] for chain, count in chains])
            denoised = np.concatenate([chain.denoised[:count] for chain, count in chains])
            check_finite(x, request)
            yield step, x, denoised

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

    def require_own_process(self) -> None:
        """EngineError in a forked child of the process that loaded the engine."""
        if os.getpid() != self._process:
            raise EngineError(
                "this sampler was made before the process forked, and the threads of its engine are not in the child; "
                "make the Sampler in the child, or start processes with multiprocessing's 'spawn'"
            )

    def _new_chain(self, kind: Kind) -> _native.Chain:
        with self._lock:
            engine, classifier = self.engine, self.classifier
        give_back = self._take(kind, engine)
        try:
            chain = self._made(kind, engine, classifier)
        except BaseException:
            give_back()
            raise
        weakref.finalize(chain, give_back).atexit = False
        return chain

    def _take(self, kind: Kind, engine: Engine) -> Callable[[], None]:
        """Take the memory of a chain with its networks from the budget, if need be that of the idle ones."""
        size = _native.Chain.most_bytes(
            batch=kind.batch,
            shape=self.model.shape,
            out_channels=self.model.out_channels,
            guided=kind.guided,
            classifier=kind.classifier,
            threads=self.threads,
            rows=_MOST_ROWS,
        )
        calls = [kind.batch * (2 if kind.guided else 1), *([kind.batch] if kind.alone else [])]
        return self.take(size, f"a chain of {kind.batch} images needs", engine, calls)

    def take(self, size: int, what: str, engine: Engine | None = None, calls: Sequence[int] = ()) -> Callable[[], None]:
        """Take bytes from the budget, if need be those of idle chains, and those of networks bound to so many images.

        As `Budget.take`; OptionError if no machine has as much.
        """
        needs = getattr(engine, "memory", None)  # of the others it is not known
        if needs is not None:
            try:
                size += sum(needs(images) for images in calls)
            except ValueError as error:
                raise OptionError(f"{error}; give a smaller batch_size") from None
        return self._making_room(lambda: self.budget.take(size, what))

    def _making_room(self, spend: Callable[[], _Result]) -> _Result:
        """`spend()`, where the memory is short once more without the idle chains."""
        try:
            return spend()
        except MemoryLimitError:
            with self._lock:
                self._idle.clear()
            return spend()

    def _made(self, kind: Kind, engine: Engine, classifier: Engine | None) -> _native.Chain:
        chain = _native.Chain(
            batch=kind.batch,
            shape=self.model.shape,
            out_channels=self.model.out_channels,
            guided=kind.guided,
            classifier=kind.classifier,
            threads=self.threads,
        )
        chain.attach(
            engine.bind(chain),
            conditional=engine.bind(_Half(chain, chain.network_output)) if kind.alone else None,
            classifier=classifier.bind(_Half(chain, chain.classifier_gradient))
            if kind.classifier and classifier is not None
            else None,
        )
        return chain

    @contextmanager
    def _chain(self, kind: Kind) -> Iterator[_native.Chain]:
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

    def _begin(self, chain: _native.Chain, request: Request, part: slice) -> None:
        """Hand the images `part` of the request to a chain, padded to its batch by repeating the last."""
        batch = len(chain.x)
        index = np.minimum(np.arange(part.start, part.start + batch), part.stop - 1)
        table, clip, noise, null_label = request.table, request.table.clip, request.noise, self.model.null_label

        def draw(number: int) -> Float:
            if not callable(noise):
                assert noise is not None
                return np.ascontiguousarray(noise[number, index])
            drawn = noise(number, request.images[index])
            check_tensor(f"what noise returned for draw {number}", drawn, (batch, *self.model.shape))
            return np.ascontiguousarray(drawn)

        chain.begin(
            table.float32(),
            clip=clip.kind,
            clip_limit=clip.limit,
            clip_ratio=clip.ratio,
            clip_max=clip.max_threshold,
            learned_variance=table.learned_variance,
            init_scale=table.init_scale,
            seeds=request.seeds[index],
            images=request.images[index],
            labels=None if request.labels is None else request.labels[index],
            null_label=-1 if null_label is None else null_label,
            guidance=None if request.guidance is None else request.guidance[index],
            classifier_scale=None if request.classifier_scale is None else request.classifier_scale[index],
            initial=None if request.initial is None else np.ascontiguousarray(request.initial[index]),
            known=None if request.known is None else np.ascontiguousarray(request.known[index]),
            keep=None if request.keep is None else np.ascontiguousarray(request.keep[index]),
            noise=None if noise is None else draw,
        )

    def advance(
        self,
        chain: _native.Chain | _native.Bound,
        until: int,
        report: Callable[[int], object] | None,
        deadline: Deadline | None = None,
    ) -> None:
        """Run rows up to `until`, natively in one go, or in pieces of about 0.1 s if progress is reported."""
        stop = None if deadline is None else deadline.stop
        try:
            if report is None:
                chain.advance(until - chain.position, stop)
                return
            rows = 1
            while chain.position < until:
                before, start = chain.position, time.perf_counter()
                done = chain.advance(min(rows, until - before), stop) - before
                report(done)
                rows = max(1, int(done * _UPDATE_SECONDS / max(time.perf_counter() - start, 1e-9)))
        except EngineError as error:
            raise EngineError(f"{self.engine.description} failed at step {chain.position + 1}: {error}") from error


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
