"""Sampler: a plan, its engine and the native chain, ready to draw images."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pysdk import _native, engines
from pysdk.errors import EngineError, NumericalError, OptionError
from pysdk.images import Images, to_uint8
from pysdk.plan import Plan
from pysdk.request import Noise, Request, check_tensor, make_request, whole_number
from pysdk.schedule import Schedule
from pysdk.table import StepTable

Output = Literal["uint8", "float32", "pil"]
Float: TypeAlias = NDArray[np.float32]
Progress = bool | Callable[[int, int], object] | None

_IDLE_CHAINS = 4
"""Chains kept for the next call, with their buffers and bindings."""

_UPDATE_SECONDS = 0.1
"""How often progress is reported."""


@dataclass(frozen=True)
class Preview:
    """A chain on its way.

    Attributes:
        step: rows done so far, 1..total.
        total: rows of the chain.
        timestep: training timestep of the row just done.
        x: the current samples, in the output form asked for.
        denoised: the network's (clipped) estimate of the final images at that row, likewise.
    """

    step: int
    total: int
    timestep: float
    x: Any
    denoised: Any


class Sampler:
    """Draws images from a plan.

    Image i of a seed is the same whatever else is drawn with it: `sample(n=64)[5]` equals `sample(n=1, start=5)[0]`,
    bit for bit, on any batch size and number of threads. A sampler may be used from several threads at once.

    Args:
        plan: path of an engine.plan, or an open `Plan`.
        engine: kind of engine to use, e.g. "onnxruntime"; by default the first of the plan that runs here.
        threads: processors to use; by default all that this process may use.
        batch_size: largest number of images in one network call; by default what the engine was built for.

    Raises:
        PlanNotFoundError, PlanError: there is no such plan, or it is damaged.
        EngineError: no engine of the plan runs on this machine.
        OptionError: a size is out of range, or the engine cannot run at another batch size.
    """

    def __init__(
        self,
        plan: str | os.PathLike[str] | Plan,
        *,
        engine: str | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.plan = plan if isinstance(plan, Plan) else Plan.open(plan)
        if threads is None:
            threads = engines.default_threads()
        self.threads = whole_number("threads", threads, 1, engines.MAX_THREADS)
        self._chosen, self._skipped = engines.choose(self.plan, engine)
        self.batch_size = self._chosen.batch_size
        if batch_size is not None:
            self.batch_size = whole_number("batch_size", batch_size, 1, 65_536)
            if self.batch_size != self._chosen.batch_size and not self._chosen.batch_invariant:
                raise OptionError(
                    f"batch_size is {batch_size}, but this engine gives the same bits only at the size it was "
                    f"built for, {self._chosen.batch_size}; leave batch_size out or build the plan with --batch-size"
                )
        self._engine = engines.load(self.plan, self._chosen, self.threads)
        self.schedule = Schedule.from_betas(self.plan.manifest.schedule.betas)
        self._idle: list[tuple[tuple[int, bool], _native.Chain]] = []
        self._lock = threading.Lock()

    @property
    def info(self) -> dict[str, Any]:
        """The plan's description, and under "running" the engine in use, what was skipped and why, threads and ISA."""
        running = {
            "engine": self._chosen.kind,
            "description": self._engine.description,
            "skipped": dict(self._skipped),
            "threads": self.threads,
            "batch_size": self.batch_size,
            "chain": f"CPU, {_native.isa()}",
        }
        return {**self.plan.describe(), "running": running}

    def __repr__(self) -> str:
        return f"Sampler({str(self.plan.path)!r}, {self._engine.description})"

    def __enter__(self) -> Sampler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the plan and the idle chains; using the sampler afterwards raises EngineError."""
        with self._lock:
            self._idle.clear()
            self._engine = _Closed()
        self.plan.close()

    def sample(
        self,
        n: int = 64,
        *,
        seed: int | Sequence[int] = 0,
        start: int = 0,
        steps: int | str | Sequence[int] | None = None,
        solver: str | StepTable | None = None,
        labels: int | Sequence[int] | NDArray[np.integer[Any]] | None = None,
        guidance_scale: float | Sequence[float] | NDArray[np.floating[Any]] | None = None,
        noise: Noise | None = None,
        initial: Float | None = None,
        output: Output = "uint8",
        progress: Progress = None,
        **options: Any,
    ) -> Any:
        """Draw images `start` .. `start + n - 1` of a seed's gallery.

        Args:
            n: number of images, 0 or more.
            seed: 0 .. 2^64 - 1; a sequence gives each image its own seed, image j is then number start + j of gallery
                seed[j].
            start: index of the first image.
            steps: number of network calls per image (1..T), an explicit list of descending timesteps, or a respacing
                rule such as "ddim50"; by default the plan's, for another solver all T.
            solver: name of a solver (see `pysdk.solvers`), or a `StepTable`; by default the plan's.
            labels: class of every image, or one per image; by default image i is of class i mod num_classes. The
                model's null label means no class.
            guidance_scale: classifier-free guidance w, eps_u + w (eps_c - eps_u) (2207.12598, with w = 1 for no
                guidance), for all or one per image; by default the plan's, else 1.
            noise: replaces the chain's own noise for parity with another sampler: an array float32 (K + 1, n, C, H, W)
                (x_T, then one draw per row), or a callable (draw, images uint64 (b,)) -> float32 (b, C, H, W).
            initial: float32 (n, C, H, W), what the chain starts from instead of noise.
            output: "uint8" (an `Images` array (n, H, W, C)), "float32" (n, C, H, W) in [-1, 1], which speaks DLPack too
                (`torch.from_dlpack`), or "pil" (a list of pictures).
            progress: True and False force and forbid a progress bar; by default one shows on a terminal after a second.
                A callable gets (network calls done, network calls in all).
            options: those of the solver (eta, variance, clip, ...) and of the timesteps (spacing, steps_offset).

        Returns:
            The images in the form of `output`.

        Raises:
            OptionError, OptionTypeError: an argument cannot be used; the message says which and why.
            NumericalError: the network returned NaN or infinity.
            EngineError: the network failed.
        """
        _check_output(output)
        request = make_request(
            self.plan.manifest,
            self.schedule,
            n=n,
            seed=seed,
            start=start,
            steps=steps,
            solver=solver,
            labels=labels,
            guidance_scale=guidance_scale,
            noise=noise,
            initial=initial,
            options=options,
        )
        result = np.empty((len(request), *self.plan.manifest.model.shape), np.float32)
        batches = self._batches(request)
        with _reporter(progress, len(batches) * len(request.table)) as report:
            for part, batch in batches:
                with self._chain(batch, request.guidance is not None) as chain:
                    self._begin(chain, request, part, batch)
                    self._advance(chain, len(request.table), report)
                    result[part] = chain.x[: part.stop - part.start]
        _check_finite(result, request)
        return _finish(result, output)

    def stream(
        self,
        n: int = 1,
        *,
        every: int = 1,
        seed: int | Sequence[int] = 0,
        start: int = 0,
        steps: int | str | Sequence[int] | None = None,
        solver: str | StepTable | None = None,
        labels: int | Sequence[int] | NDArray[np.integer[Any]] | None = None,
        guidance_scale: float | Sequence[float] | NDArray[np.floating[Any]] | None = None,
        noise: Noise | None = None,
        initial: Float | None = None,
        output: Output = "uint8",
        **options: Any,
    ) -> Iterator[Preview]:
        """The same images while they form: a `Preview` after every `every` steps and after the last.

        All n images advance together, so memory is that of n images; the last preview's `x` equals `sample(...)`.
        Arguments and errors are those of `sample`; they are checked when `stream` is called, not at the first preview.
        """
        _check_output(output)
        stride = whole_number("every", every, 1, 2**31)
        request = make_request(
            self.plan.manifest,
            self.schedule,
            n=n,
            seed=seed,
            start=start,
            steps=steps,
            solver=solver,
            labels=labels,
            guidance_scale=guidance_scale,
            noise=noise,
            initial=initial,
            options=options,
        )
        chains = []
        for part, batch in self._batches(request):
            chain = self._new_chain(batch, request.guidance is not None)
            self._begin(chain, request, part, batch)
            chains.append((chain, part.stop - part.start))
        return self._previews(request, chains, stride, output)

    def _previews(
        self, request: Request, chains: list[tuple[_native.Chain, int]], every: int, output: Output
    ) -> Iterator[Preview]:
        """Advance chains, each with its number of images, side by side."""
        total, step = len(request.table), 0
        while chains and step < total:
            step = min(step + every, total)
            for chain, _ in chains:
                self._advance(chain, step, None)
            x = np.concatenate([chain.x[:count] for chain, count in chains])
            denoised = np.concatenate([chain.denoised[:count] for chain, count in chains])
            _check_finite(x, request)
            timestep = float(request.table.timesteps[step - 1])
            yield Preview(step, total, timestep, _finish(x, output), _finish(denoised, output))

    def _batches(self, request: Request) -> list[tuple[slice, int]]:
        """Which images run together, and the batch size of their chain; only the last is smaller, or padded."""
        size = self.batch_size // 2 if request.guidance is not None else self.batch_size
        if size == 0:
            raise OptionError("batch_size is 1, but guidance runs every image twice in one call; use 2 or more")
        parts = [slice(i, min(i + size, len(request))) for i in range(0, len(request), size)]
        exact = self._chosen.batch_invariant
        return [(part, part.stop - part.start if exact else size) for part in parts]

    def _new_chain(self, batch: int, guided: bool) -> _native.Chain:
        model = self.plan.manifest.model
        chain = _native.Chain(
            batch=batch, shape=model.shape, out_channels=model.out_channels, guided=guided, threads=self.threads
        )
        chain.attach(self._engine.bind(chain))
        return chain

    @contextmanager
    def _chain(self, batch: int, guided: bool) -> Iterator[_native.Chain]:
        """A chain for one thread to use, from the idle ones if one fits."""
        key = (batch, guided)
        with self._lock:
            engine = self._engine
            index = next((i for i, (found, _) in enumerate(self._idle) if found == key), None)
            chain = None if index is None else self._idle.pop(index)[1]
        if chain is None:
            chain = self._new_chain(batch, guided)
        yield chain
        # not after an error: a chain that failed is dropped with its buffers
        with self._lock:
            if self._engine is engine:  # not closed meanwhile
                self._idle.append((key, chain))
                del self._idle[:-_IDLE_CHAINS]

    def _begin(self, chain: _native.Chain, request: Request, part: slice, batch: int) -> None:
        """Hand the images `part` of the request to a chain, padded to its batch by repeating the last."""
        index = np.minimum(np.arange(part.start, part.start + batch), part.stop - 1)
        table, clip, noise = request.table, request.table.clip, request.noise

        def draw(number: int) -> Float:
            if not callable(noise):
                assert noise is not None
                return np.ascontiguousarray(noise[number, index])
            drawn = noise(number, request.images[index])
            check_tensor(f"what noise returned for draw {number}", drawn, (batch, *self.plan.manifest.model.shape))
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
            null_label=-1 if self.plan.manifest.model.null_label is None else self.plan.manifest.model.null_label,
            guidance=None if request.guidance is None else request.guidance[index],
            initial=None if request.initial is None else np.ascontiguousarray(request.initial[index]),
            noise=None if noise is None else draw,
        )

    def _advance(self, chain: _native.Chain, until: int, report: Callable[[int], object] | None) -> None:
        """Run rows up to `until`, natively in one go, or in pieces of about 0.1 s if progress is reported."""
        try:
            if report is None:
                chain.advance(until - chain.position)
                return
            rows = 1
            while chain.position < until:
                before, start = chain.position, time.perf_counter()
                done = chain.advance(min(rows, until - before)) - before
                report(done)
                rows = max(1, int(done * _UPDATE_SECONDS / max(time.perf_counter() - start, 1e-9)))
        except EngineError as error:
            raise EngineError(f"{self._engine.description} failed at step {chain.position + 1}: {error}") from error


class _Closed:
    """In the place of the engine of a closed sampler."""

    description = "closed"

    def bind(self, buffers: engines.Buffers) -> Callable[[], object]:
        raise EngineError("this sampler is closed; open the plan again with Sampler(path)")


@contextmanager
def _reporter(progress: Progress, total: int) -> Iterator[Callable[[int], object] | None]:
    """Something that is told how many network calls were done, or None."""
    if callable(progress):
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        yield report
    elif progress or (progress is None and (sys.stderr.isatty() or "ipykernel" in sys.modules)):
        from tqdm.auto import tqdm  # a quarter of the import time of the SDK

        with tqdm(total=total, unit="step", delay=0 if progress else 1, leave=bool(progress)) as bar:
            yield bar.update
    else:
        yield None


def _check_output(output: object) -> None:
    if output not in ("uint8", "float32", "pil"):
        raise OptionError(f"output is {output!r}, expected 'uint8', 'float32' or 'pil'")


def _check_finite(x: Float, request: Request) -> None:
    finite = np.isfinite(x).all(axis=(1, 2, 3))
    if not finite.all():
        raise NumericalError(
            f"image {int(request.images[np.argmin(finite)])} became NaN or infinite in {len(request.table)} rows: the "
            "network or the step table diverges on it; try another solver, more steps or a clip"
        )


def _finish(x: Float, output: Output) -> Any:
    if output == "float32":
        return x
    images = Images(to_uint8(x))
    return images.to_pil() if output == "pil" else images
