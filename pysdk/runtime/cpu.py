"""Chains on the CPU and their engine."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from pysdk import _native
from pysdk.checks import whole_number
from pysdk.engines import choice, registry
from pysdk.engines.contract import Engine
from pysdk.errors import EngineError, OptionError
from pysdk.machine.memory import Budget
from pysdk.plan.manifest import ModelInfo
from pysdk.plan.reader import Plan
from pysdk.request.request import Request
from pysdk.runtime.batches import MAX_BATCH, UPDATE_SECONDS, Closed, Executor, Float, Kind, check_finite
from pysdk.runtime.deadline import Deadline, told

_MOST_ROWS = 10_000
"""Rows that a kept chain's memory is counted for; longer tables add little."""


class _Half:
    """The conditional half of a chain's network buffers, which comes first; see `pysdk.engines.contract.Buffers`."""

    def __init__(self, chain: _native.Chain, output: Float) -> None:
        batch = len(chain.x)
        self.network_input = chain.network_input[:batch]
        self.network_time = chain.network_time
        self.network_labels = chain.network_labels[:batch]
        self.network_output = output[:batch]


class CpuExecutor(Executor[Engine, _native.Chain]):
    """Runs requests on the CPU; see `pysdk.runtime.batches.Executor`.

    Args:
        classifier: the classifier's gradient, loaded, or None.
        threads: for the update.
    """

    def __init__(
        self,
        model: ModelInfo,
        engine: Engine,
        classifier: Engine | None = None,
        *,
        batch_size: int,
        batch_invariant: bool,
        threads: int,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(model, engine, batch_size=batch_size, batch_invariant=batch_invariant, budget=budget)
        self.classifier = classifier
        self.threads = threads

    @property
    def chain_description(self) -> str:
        """The processor's instruction set."""
        return f"CPU, {_native.isa()}"

    def close(self) -> None:
        """Let go of the classifier too."""
        super().close()
        self.classifier = None

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

    def _take(self, kind: Kind, engine: Engine | Closed) -> Callable[[], None]:
        """Take the memory of a chain with its networks from the budget, if need be by dropping idle chains."""
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

    def take(
        self, size: int, what: str, engine: Engine | Closed | None = None, calls: Sequence[int] = ()
    ) -> Callable[[], None]:
        """Take bytes from the budget, if need be those of idle chains, and those of networks bound to so many images.

        As `Budget.take`; OptionError if no machine has as much.
        """
        needs = getattr(engine, "memory", None)  # other engines do not say
        if needs is not None:
            try:
                size += sum(needs(images) for images in calls)
            except ValueError as error:
                raise OptionError(f"{error}; give a smaller batch_size") from None
        return self._making_room(lambda: self.budget.take(size, what))

    def _made(self, kind: Kind, engine: Engine | Closed, classifier: Engine | None) -> _native.Chain:
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

    def _samples(self, chain: _native.Chain, count: int) -> Float:
        return chain.x[:count]

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
                rows = max(1, int(done * UPDATE_SECONDS / max(time.perf_counter() - start, 1e-9)))
        except EngineError as error:
            raise EngineError(f"{self.engine.description} failed at step {chain.position + 1}: {error}") from error

    def previews(
        self, request: Request, every: int, deadline: Deadline | None = None
    ) -> Iterator[tuple[int, Float, Float]]:
        """As in `Executor`: the chains take turns."""
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


def load(
    plan: Plan, kind: str | None, *, threads: int, batch_size: int | None, budget: Budget, trust: bool
) -> tuple[CpuExecutor, str, dict[str, str]]:
    """The executor of a plan on the CPU, the kind of its engine, and why each engine before it does not run here.

    Args:
        plan: an open plan.
        kind: take this engine or none.
        threads: for engines and update.
        batch_size: images in one network call; by default what the engine was built for.
        budget: what memory is taken from.
        trust: run networks that could compute forever.

    Raises:
        EngineError: no engine of the plan runs here, or its network is refused without `trust`.
        MemoryLimitError: the budget is too small.
        OptionError: the engine cannot run at this batch size.
    """
    chosen, skipped = choice.choose(plan, kind)
    model, classifier = plan.manifest.model, plan.manifest.classifier
    size = chosen.batch_size if batch_size is None else whole_number("batch_size", batch_size, 1, MAX_BATCH)
    invariant = chosen.batch_invariant and (classifier is None or classifier.batch_invariant)
    if size != chosen.batch_size and not invariant:
        raise OptionError(
            f"batch_size is {batch_size}, but this engine gives the same bits only at the size it was "
            f"built for, {chosen.batch_size}; leave batch_size out or build the plan with --batch-size"
        )
    gradient = None
    if classifier is not None:
        reads = msgspec.structs.replace(model, out_channels=model.shape[0], num_classes=classifier.num_classes)
        info = registry.of_classifier(classifier, size)
        network = plan.member(classifier.member)
        gradient = registry.on_cpu(info.kind).load(reads, info, network, threads, budget=budget, trust=trust)
    sized = msgspec.structs.replace(chosen, batch_size=size)
    executor = CpuExecutor(
        model,
        registry.load(plan, sized, threads, budget, trust=trust),
        gradient,
        batch_size=size,
        batch_invariant=invariant,
        threads=threads,
        budget=budget,
    )
    return executor, chosen.kind, skipped
