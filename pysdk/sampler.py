"""Sampler: a plan, its engine and the native chain, ready to draw images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import whole_number
from pysdk.diffusion.table import StepTable
from pysdk.diffusion.timesteps import Steps
from pysdk.errors import OptionTypeError
from pysdk.images import Output, check_form
from pysdk.machine.float_state import standard_floats
from pysdk.plan.reader import Plan
from pysdk.progress import Progress
from pysdk.request.request import Noise, Request, make_request
from pysdk.runtime.batches import Preview
from pysdk.runtime.deadline import Deadline
from pysdk.runtime.target import Target, load
from pysdk.tasks.methods import Tasks

if TYPE_CHECKING:
    from pysdk.runtime.cuda import Launch

__all__ = ["Preview", "Sampler"]

Float: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = int | Sequence[int] | NDArray[np.integer[Any]] | None
Scale: TypeAlias = float | Sequence[float] | NDArray[np.floating[Any]] | None


class Sampler(Tasks):
    """Draws images from a plan.

    Image i of a seed is the same whatever else is drawn with it: `sample(n=64)[5]` equals `sample(n=1, start=5)[0]`,
    bit for bit, on any batch size and number of threads. A sampler may be used from several threads at once, but not in
    a forked child of the process that made it.

    Args:
        plan: path of an engine.plan, or an open `Plan`, which stays open when the sampler is closed.
        engine: kind of engine to use, e.g. "onnxruntime"; by default the first of the plan that runs here.
        threads: processors to use; by default all that this process may use.
        batch_size: largest number of images in one network call; by default what the engine was built for.
        device: "cpu", "cuda" or "cuda:1": where chains and engine run (docs/gpu.md). Never chosen for you: images of
            one device differ from another's in their last bits.
        network: on a device, runs in place of the plan's engines: a torch module or another capturable callable
            (x, t[, label]) -> output on CUDA tensors; see `pysdk.runtime.torch_network.TorchNetwork`.
        launch: on a device, how rows get to it: "while" for one launch per chain, "step" for one per row, "plain" for
            plain calls, each taken or an error; by default, "auto", the first of them that works, which `info` tells.
        max_memory: bytes that engines, chains and results may take, on the CPU; by default four fifths of what the
            system gives (the machine's memory, or the limit of a control group or of the process).
        trust: run networks that could compute forever: on ONNX Runtime any operators, control flow and functions too,
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
        target = Target(device, engine, threads, batch_size, network, launch, max_memory, trust)
        self.device = device
        self.plan = plan if isinstance(plan, Plan) else Plan.open(plan)
        self._opened = self.plan is not plan
        try:
            loaded = load(self.plan, target)
        except BaseException:
            self._close_plan()
            raise
        self._executor, self._kind, self._skipped = loaded.executor, loaded.kind, loaded.skipped
        self.threads, self.batch_size = target.threads, self._executor.batch_size
        self.schedule = self.plan.manifest.schedule.make()

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
            "max_memory": self._executor.budget.limit,
            "memory": self._executor.budget.limit - self._executor.budget.left,
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
                "ddim50"; by default the plan's, for another solver all T (18 for networks of sigma). A step is one
                network call, for some solvers two (`docs/solvers.md`).
            solver: name of a solver (see `pysdk.solvers`), or a `StepTable`; by default the plan's.
            labels: class of every image, or one per image; by default image i has class i mod num_classes. The
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
            options: the solver's (eta, variance, clip, sigmas, ...) and those for timesteps (spacing,
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
        request = make_request(
            self.plan.manifest,
            self.schedule,
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

        All n images advance together, so memory is for n images; the last preview's `x` equals `sample(...)`, and
        `denoised` is the network's estimate on the way (progressive generation, DDPM, section 4.3).
        The other arguments and the errors are those of `sample`; they are checked when `stream` is called, not at the
        first preview. What the caller does between previews counts towards the deadline.
        """
        check_form(output)
        limit = Deadline.of(deadline)
        stride = whole_number("every", every, 1, 2**31)
        request = make_request(self.plan.manifest, self.schedule, n, **arguments)
        return self._previews(request, self._executor.previews(request, stride, limit), output)

    def _previews(
        self, request: Request, states: Iterator[tuple[int, Float, Float]], output: Output
    ) -> Iterator[Preview]:
        for step, x, denoised in states:
            timestep = float(request.table.timesteps[step - 1])
            yield Preview(step, len(request.table), timestep, self._in_form(x, output), self._in_form(denoised, output))
