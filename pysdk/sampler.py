"""Sampler: a plan, its engine and the native chain, ready to draw images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from pysdk import engines
from pysdk.checks import flag, whole_number
from pysdk.diffusion.table import Clip, StepTable
from pysdk.diffusion.timesteps import Steps
from pysdk.errors import OptionError, OptionTypeError
from pysdk.float_state import standard_floats
from pysdk.images import Output, check_form
from pysdk.plan.manifest import EngineInfo
from pysdk.plan.reader import Plan
from pysdk.progress import Progress, reporter
from pysdk.request.request import Noise, Request, make_request, resolve_table, split_arguments
from pysdk.runtime.cpu import Executor
from pysdk.runtime.deadline import Deadline, told_of_terms
from pysdk.runtime.devices import device_number
from pysdk.runtime.memory import Budget
from pysdk.tasks.methods import Uses

if TYPE_CHECKING:
    from pysdk.likelihood.bound import Likelihood
    from pysdk.runtime.cuda import Launch

Float: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = int | Sequence[int] | NDArray[np.integer[Any]] | None
Scale: TypeAlias = float | Sequence[float] | NDArray[np.floating[Any]] | None


@dataclass(frozen=True)
class Preview:
    """A chain on its way.

    Attributes:
        step: rows done so far, 1..total.
        total: rows of the chain.
        timestep: what the network was told in the row just done: a timestep; of networks of sigma ln(sigma)/4 or sigma.
        x: the current samples, in the output form asked for.
        denoised: the network's (clipped) estimate of the final images at that row, likewise.
    """

    step: int
    total: int
    timestep: float
    x: Any
    denoised: Any


class Sampler(Uses):
    """Draws images from a plan.

    Image i of a seed is the same whatever else is drawn with it: `sample(n=64)[5]` equals `sample(n=1, start=5)[0]`,
    bit for bit, on any batch size and number of threads. A sampler may be used from several threads at once, but not in
    a forked child of the process that made it.

    Args:
        plan: path of an engine.plan, or an open `Plan`, which stays open when the sampler is closed.
        engine: kind of engine to use, e.g. "onnxruntime"; by default the first of the plan that runs here.
        threads: processors to use; by default all that this process may use.
        batch_size: largest number of images in one network call; by default what the engine was built for.
        device: "cpu", "cuda" or "cuda:1": where chains and engine run (docs/gpu.md). Never chosen by itself: images of
            one device differ from another's in their last bits.
        network: on a device, runs in the place of the plan's engines: a torch module or another capturable callable
            (x, t[, label]) -> output on CUDA tensors; see `pysdk.runtime.torch_network.TorchNetwork`.
        launch: on a device, how rows get to it: "while" for one launch per chain, "step" for one per row, "plain" for
            plain calls, each taken or an error; by default, "auto", the first of them that works, which `info` tells.
        max_memory: bytes that engines, chains and results may take, on the CPU; by default four fifths of what the
            system gives (the machine's memory, or the limit of a control group or of the process).
        trust: run networks that could compute for ever: on ONNX Runtime any operators, control flow and functions too,
            natively a step out of proportion to the weights. For plans whose maker you know; memory stays limited.

    Raises:
        PlanNotFoundError, PlanError: there is no such plan, or it is damaged.
        MemoryLimitError: `max_memory` is too small for the plan; `sample` raises it for a batch.
        EngineError: no engine of the plan runs on this machine, or its network is refused without `trust`.
        DeviceError: there is no such device, or it has no room.
        OptionError: a size is out of range, or the engine cannot run at another batch size.
    """

    @standard_floats
    def __init__(
        self,
        plan: str | os.PathLike[str] | Plan,
        *,
        engine: str | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
        device: str = "cpu",
        network: Any = None,
        launch: Launch = "auto",
        max_memory: int | None = None,
        trust: bool = False,
    ) -> None:
        number = device_number(device)
        if number is None and (network is not None or launch != "auto"):
            raise OptionError("network and launch are for a CUDA device; give device='cuda' too, or leave them out")
        if number is not None and max_memory is not None:
            raise OptionError("max_memory limits the memory of the CPU's engines; leave it out on a CUDA device")
        self._budget = Budget(max_memory)
        self._trust = flag("trust", trust)
        self.device = device
        self.threads = whole_number(
            "threads", engines.default_threads() if threads is None else threads, 1, engines.MAX_THREADS
        )
        self.plan = plan if isinstance(plan, Plan) else Plan.open(plan)
        self._opened = self.plan is not plan
        try:
            if number is None:
                chosen, self._skipped = engines.choose(self.plan, engine)
                self._executor, self._kind = self._load(chosen, batch_size), chosen.kind
            else:
                from pysdk.runtime.cuda import load

                self._executor, self._kind, self._skipped = load(
                    self.plan, number, engine=engine, network=network, batch_size=batch_size, launch=launch
                )
        except BaseException:
            self._close_plan()
            raise
        self.batch_size = self._executor.batch_size
        self.schedule = self.plan.manifest.schedule.make()

    def _load(self, chosen: EngineInfo, batch_size: int | None) -> Executor:
        manifest = self.plan.manifest
        size = chosen.batch_size if batch_size is None else whole_number("batch_size", batch_size, 1, 65_536)
        classifier = manifest.classifier
        invariant = chosen.batch_invariant and (classifier is None or classifier.batch_invariant)
        if size != chosen.batch_size and not invariant:
            raise OptionError(
                f"batch_size is {batch_size}, but this engine gives the same bits only at the size it was "
                f"built for, {chosen.batch_size}; leave batch_size out or build the plan with --batch-size"
            )
        model, gradient = manifest.model, None
        if classifier is not None:
            reads = msgspec.structs.replace(model, out_channels=model.shape[0], num_classes=classifier.num_classes)
            info = EngineInfo(kind="onnxruntime", member=classifier.member, precision="float32", batch_size=size)
            network = self.plan.member(classifier.member)
            gradient = engines.on_cpu(info.kind).load(
                reads, info, network, self.threads, budget=self._budget, trust=self._trust
            )
        sized = msgspec.structs.replace(chosen, batch_size=size)
        return Executor(
            model,
            engines.load(self.plan, sized, self.threads, self._budget, trust=self._trust),
            gradient,
            batch_size=size,
            batch_invariant=invariant,
            threads=self.threads,
            budget=self._budget,
        )

    @property
    def info(self) -> dict[str, Any]:
        """The plan's description, and under "running" the engine in use, what was skipped and why, threads and ISA."""
        running = {
            "engine": self._kind,
            "description": self._executor.engine.description,
            "skipped": dict(self._skipped),
            "threads": self.threads,
            "batch_size": self.batch_size,
            "chain": self._executor.chain_description,
            "max_memory": self._budget.limit,
            "memory": self._budget.limit - self._budget.left,
        }
        return {**self.plan.describe(), "running": running}

    def __reduce__(self) -> NoReturn:
        """OptionTypeError: an engine and its threads cannot be copied into another process."""
        raise OptionTypeError("a sampler cannot be pickled or copied; pass the plan's path and make a Sampler there")

    def __repr__(self) -> str:
        return f"Sampler({str(self.plan.path)!r}, {self._executor.engine.description})"

    def __enter__(self) -> Sampler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the chains, and of the plan if the sampler opened it; using it afterwards raises EngineError."""
        self._executor.close()
        self._close_plan()

    def _close_plan(self) -> None:
        if self._opened:
            self.plan.close()

    @standard_floats
    def sample(
        self,
        n: int = 64,
        *,
        seed: int | Sequence[int] = 0,
        start: int = 0,
        steps: Steps = None,
        solver: str | StepTable | None = None,
        labels: Labels = None,
        guidance_scale: Scale = None,
        guidance_interval: tuple[float, float] | None = None,
        classifier_scale: Scale = None,
        noise: Noise | None = None,
        initial: Float | None = None,
        output: Output = "uint8",
        progress: Progress = None,
        deadline: float | None = None,
        **options: Any,
    ) -> Any:
        """Draw images `start` .. `start + n - 1` of a seed's gallery.

        Args:
            n: number of images, 0 or more.
            seed: 0 .. 2^64 - 1; a sequence gives each image its own seed, image j is then number start + j of gallery
                seed[j].
            start: index of the first image.
            steps: number of steps (1..T), an explicit list of descending timesteps, or a respacing rule such as
                "ddim50"; by default the plan's, for another solver all T (of networks of sigma 18). A step is one
                network call, of some solvers two (`docs/solvers.md`).
            solver: name of a solver (see `pysdk.solvers`), or a `StepTable`; by default the plan's.
            labels: class of every image, or one per image; by default image i is of class i mod num_classes. The
                model's null label means no class.
            guidance_scale: classifier-free guidance w, eps_u + w (eps_c - eps_u) (2207.12598, with w = 1 for no
                guidance), for all or one per image; by default the plan's, else 1.
            guidance_interval: (lowest, highest) timestep at which there is guidance of either kind; elsewhere w is 1
                and no classifier is asked (2404.07724), which also halves the work there.
            classifier_scale: classifier guidance, eps - scale sqrt(1 - abar) grad log p(label | x) (2105.05233,
                Algorithm 2), for all or one per image, by the classifier in the plan; by default 0, none.
            noise: replaces the chain's own noise for parity with another sampler: an array float32 (K + 1, n, C, H, W)
                (x_T, then one draw per row), or a callable (draw, images uint64 (b,)) -> float32 (b, C, H, W).
            initial: float32 (n, C, H, W), what the chain starts from instead of noise, scaled like the first row's x:
                images for `reverse_ddim`, else S x_0 + N e, with networks of sigma x_0 + sigma e.
            output: "uint8" (an `Images` array (n, H, W, C)), "float32" (n, C, H, W) in the model's value range, usually
                [-1, 1], which speaks DLPack too (`torch.from_dlpack`), "pil" (a list of pictures), or "dlpack": as
                "float32", but images made on a device stay there, for `torch.from_dlpack` without a copy.
            progress: True and False force and forbid a progress bar; by default one shows on a terminal after a second.
                A callable gets (rows of the table done, rows in all), counted for each batch.
            deadline: seconds, counted from the call, after which it raises DeadlineError; the sampler stays usable.
            options: those of the solver (eta, variance, clip, sigmas, ...) and of the timesteps (spacing,
                steps_offset).

        Returns:
            The images in the form of `output`.

        Raises:
            OptionError, OptionTypeError: an argument cannot be used; the message says which and why.
            NumericalError: the network returned NaN or infinity.
            EngineError: the network failed.
            DeadlineError: the deadline was over before the images were done; the message says how many were.
        """
        check_form(output)
        limit = Deadline.of(deadline)
        request = self._request(
            n,
            steps=steps,
            solver=solver,
            seed=seed,
            start=start,
            labels=labels,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
            classifier_scale=classifier_scale,
            noise=noise,
            initial=initial,
            **options,
        )
        return self._executor.images(request, output, progress, limit)

    @standard_floats
    def stream(
        self,
        n: int = 1,
        *,
        every: int = 1,
        output: Output = "uint8",
        deadline: float | None = None,
        **arguments: Any,
    ) -> Iterator[Preview]:
        """The same images while they form: a `Preview` after every `every` steps and after the last.

        All n images advance together, so memory is that of n images; the last preview's `x` equals `sample(...)`, and
        `denoised` is what the network makes of it on the way (progressive generation, DDPM, section 4.3).
        The other arguments and the errors are those of `sample`; they are checked when `stream` is called, not at the
        first preview. What the caller does between previews counts towards the deadline.
        """
        check_form(output)
        limit = Deadline.of(deadline)
        stride = whole_number("every", every, 1, 2**31)
        request = self._request(n, **arguments)
        return self._previews(request, self._executor.previews(request, stride, limit), output)

    def _request(
        self, n: int, *, steps: Steps = None, solver: str | StepTable | None = None, **arguments: Any
    ) -> Request:
        manifest = self.plan.manifest
        named, options = split_arguments(arguments)
        table = resolve_table(manifest, self.schedule, solver, steps, options)
        return make_request(manifest, self.schedule, table, n=n, **named)

    @standard_floats
    def likelihood(
        self,
        images: NDArray[np.uint8],
        *,
        labels: int | Sequence[int] | NDArray[np.integer[Any]] | None = None,
        seed: int = 0,
        start: int = 0,
        steps: int | str | Sequence[int] | None = None,
        terms: int | None = None,
        variance: str | None = None,
        clip: Clip | None = None,
        progress: Progress = None,
        deadline: float | None = None,
        **options: Any,
    ) -> Likelihood:
        """The variational bound of images in bits per dimension, term by term (DDPM, eq. 5; docs/likelihood.md).

        The noise of image i is that of image `start` + i of the seed's gallery, in draws of its own: the result of an
        image does not depend on the others, the batch size or the threads.

        Args:
            images: uint8 (N, H, W, C).
            labels: class of every image, or one per image; needed by models with classes. The model's null label means
                no class. There is no guidance.
            seed: 0 .. 2^64 - 1, of the noise and of the choice of terms.
            start: index of the first image.
            steps: those of the reverse process, as in `sample`; by default all T.
            terms: network calls per image, from 2 to the number of steps: a stratified subset of the terms, whose
                weighted sum is an unbiased estimate of the bound; by default all.
            variance: "small", "large" or "learned" (or diffusers' names); by default the plan's.
            clip: `Clip.clamp(limit)` or `Clip.none()`, of the denoised estimate; by default the plan's.
            progress, deadline: as in `sample`.
            options: `spacing` and `steps_offset` of the timesteps.

        Raises:
            OptionError, OptionTypeError: an argument cannot be used; the message says which and why.
            NumericalError: a term is NaN or infinite.
            EngineError: the network failed.
            DeadlineError: the deadline was over before the terms were.
        """
        from pysdk.likelihood.bound import answer, make_question

        if self.device != "cpu":
            raise OptionError(f"the likelihood is computed on the CPU alone, this sampler is on {self.device!r}")
        executor, limit = self._executor, Deadline.of(deadline)
        question = make_question(
            self.plan.manifest,
            self._diffusion,
            images,
            labels=labels,
            seed=seed,
            start=start,
            steps=steps,
            terms=terms,
            variance=variance,
            clip=clip,
            options=options,
        )
        executor.require_own_process()
        calls = -(-len(images) // self.batch_size) * len(question.terms.rows)
        with reporter(progress, calls) as report, told_of_terms(limit):
            return answer(
                question,
                executor.engine,
                batch_size=self.batch_size,
                padded=not executor.batch_invariant,
                threads=self.threads,
                advance=lambda bound, until: executor.advance(bound, until, report, limit),
            )

    def _previews(
        self, request: Request, states: Iterator[tuple[int, Float, Float]], output: Output
    ) -> Iterator[Preview]:
        for step, x, denoised in states:
            timestep = float(request.table.timesteps[step - 1])
            yield Preview(step, len(request.table), timestep, self._in_form(x, output), self._in_form(denoised, output))
