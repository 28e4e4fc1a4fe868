"""What people do with a sampler besides drawing: a method a task, whose file makes the requests to the chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip
from pysdk.diffusion.timesteps import Steps
from pysdk.errors import OptionError
from pysdk.images import Output, check_form, in_form
from pysdk.machine.float_state import standard_floats
from pysdk.plan.reader import Plan
from pysdk.progress import Progress, reporter
from pysdk.runtime.deadline import Deadline, told
from pysdk.tasks.encode import STEPS, decoding, encoding
from pysdk.tasks.image_to_image import redrawing
from pysdk.tasks.inpaint import repaint
from pysdk.tasks.interpolate import diffused, latent_ends, on_the_sphere

if TYPE_CHECKING:
    from pysdk import _native
    from pysdk.likelihood.bound import Likelihood
    from pysdk.runtime.cpu import CpuExecutor
    from pysdk.runtime.cuda import CudaExecutor

Float: TypeAlias = NDArray[np.float32]


class Tasks:
    """The methods of a `Sampler` that take images or latents."""

    plan: Plan
    schedule: Schedule | EdmSchedule
    device: str
    _executor: CpuExecutor | CudaExecutor

    def _in_form(self, x: Float, output: Output) -> Any:
        return in_form(x, output, self.plan.manifest.model.value_range)

    @property
    def _diffusion(self) -> Schedule:
        """The schedule, of timesteps."""
        if isinstance(self.schedule, EdmSchedule):
            raise OptionError(
                f"{self.plan.manifest.model.name!r} is a network of sigma, without timesteps at which an image could "
                "enter: only sample and stream are for it"
            )
        return self.schedule

    @standard_floats
    def encode(
        self,
        images: Any,
        *,
        steps: Steps = STEPS,
        progress: Progress = None,
        deadline: float | None = None,
        **arguments: Any,
    ) -> Float:
        """The noise that `decode` turns into these images: DDIM run backwards (2010.02502, section 4.3).

        Args:
            images: uint8 (n, H, W, C), float32 (n, C, H, W) in the model's value range, or a list of pictures.
            steps: as in `sample`; the more, the closer the way back. `decode` needs the same.
            progress, deadline: as in `sample`.
            arguments: labels (of all images or one each; without any the null label), guidance_scale,
                guidance_interval, classifier_scale, spacing and steps_offset as in `sample`; network_timestep as in
                `pysdk.solvers.reverse_ddim`.

        Returns:
            float32 (n, C, H, W), close to standard normal.

        Raises:
            OptionError, OptionTypeError, NumericalError, EngineError, DeadlineError: as in `sample`.
        """
        limit = Deadline.of(deadline)
        request = encoding(self.plan.manifest, self._diffusion, images, steps=steps, **arguments)
        return self._executor.run(request, progress, limit)

    @standard_floats
    def decode(
        self,
        latents: Float,
        *,
        steps: Steps = STEPS,
        output: Output = "uint8",
        progress: Progress = None,
        deadline: float | None = None,
        **arguments: Any,
    ) -> Any:
        """Images of latents by DDIM: deterministic unless `eta` is given, and without a clip, which `encode` has not.

        Args:
            latents: float32 (n, C, H, W), from `encode`, or any standard normal numbers.
            steps, output, progress, deadline: as in `sample`.
            arguments: as in `encode`, and the options of `ddim`.

        Returns:
            The images in the form of `output`.

        Raises:
            OptionError, OptionTypeError, NumericalError, EngineError, DeadlineError: as in `sample`.
        """
        check_form(output)
        limit = Deadline.of(deadline)
        request = decoding(self.plan.manifest, self._diffusion, latents, steps=steps, **arguments)
        return self._executor.images(request, output, progress, limit)

    @standard_floats
    def interpolate(
        self,
        first: Any,
        second: Any,
        n: int = 9,
        *,
        timestep: int | None = None,
        output: Output = "uint8",
        progress: Progress = None,
        deadline: float | None = None,
        **arguments: Any,
    ) -> Any:
        """n images that lead from one image to another.

        Without a timestep, on the sphere of latents: both are encoded, their latents are interpolated spherically, and
        decoded (2010.02502, section 5.3). With one, as in DDPM (2006.11239, figure 8): both are diffused to that
        timestep, interpolated linearly there, and denoised. All n share their noise, so neighbours are alike.

        Args:
            first, second: one image each, uint8 (H, W, C), float32 (C, H, W) or a picture. Without a timestep also the
                number of an image in the gallery of `seed`.
            n: images, 2 or more; the ends are (what the model makes of) `first` and `second`.
            timestep: where they meet, 0 to T - 1: the higher, the more is made up.
            output, progress, deadline: as in `sample`.
            arguments: seed, start (whose noise is shared), labels (of all or one for each of the n; without any the
                null label), guidance and options as in `sample`; steps by default 50, with a timestep the plan's.

        Returns:
            The images in the form of `output`.

        Raises:
            OptionError, OptionTypeError, NumericalError, EngineError, DeadlineError: as in `sample`.
        """
        check_form(output)
        limit = Deadline.of(deadline)
        manifest, schedule = self.plan.manifest, self._diffusion
        if timestep is not None:
            request = diffused(manifest, schedule, first, second, n, timestep=timestep, **arguments)
        else:
            ends = latent_ends(manifest, schedule, first, second, **arguments)
            encoded = ends if isinstance(ends, np.ndarray) else self._executor.run(ends, progress, limit)
            request = on_the_sphere(manifest, schedule, encoded, n, **arguments)
        return self._executor.images(request, output, progress, limit)

    @standard_floats
    def image_to_image(
        self,
        images: Any,
        *,
        strength: float | None = None,
        timestep: int | None = None,
        output: Output = "uint8",
        progress: Progress = None,
        deadline: float | None = None,
        **arguments: Any,
    ) -> Any:
        """Redraw images: each is diffused part of the way and denoised from there (SDEdit, 2108.01073).

        Args:
            images: uint8 (n, H, W, C), float32 (n, C, H, W) in the model's value range, or a list of pictures.
            strength: share of the steps that are run, in (0, 1]: near 0 the image stays, at 1 little of it is left; by
                default 0.5.
            timestep: the timestep to diffuse to instead, 0 to T - 1.
            output, progress, deadline: as in `sample`.
            arguments: seed, start, labels (without any the null label), steps, solver (by name), guidance and options
                as in `sample`.

        Returns:
            The images in the form of `output`.

        Raises:
            OptionError, OptionTypeError, NumericalError, EngineError, DeadlineError: as in `sample`.
        """
        check_form(output)
        limit = Deadline.of(deadline)
        request = redrawing(
            self.plan.manifest, self._diffusion, images, strength=strength, timestep=timestep, **arguments
        )
        return self._executor.images(request, output, progress, limit)

    @standard_floats
    def inpaint(
        self,
        images: Any,
        mask: ArrayLike,
        *,
        jump_length: int = 10,
        jump_n_sample: int = 10,
        output: Output = "uint8",
        progress: Progress = None,
        deadline: float | None = None,
        **arguments: Any,
    ) -> Any:
        """Draw a part of images anew, to fit what is kept of them (RePaint, 2201.09865).

        Args:
            images: uint8 (n, H, W, C), float32 (n, C, H, W) in the model's value range, or a list of pictures.
            mask: True (or not 0) where to draw, False where to keep; bool or numbers, (H, W) for all images or
                (n, H, W). What is kept comes out unchanged.
            jump_length: steps that are taken back together.
            jump_n_sample: how often each stretch of `jump_length` steps is drawn, 1 or more; more of it fits better,
                costs more, and 1 never goes back.
            output, progress, deadline: as in `sample`.
            arguments: seed, start, labels (without any the null label), steps, solver (by name, one that forgets the
                rows before: "ddpm" or "ddim"), guidance, options and noise (a callable) as in `sample`.

        Returns:
            The images in the form of `output`.

        Raises:
            OptionError, OptionTypeError, NumericalError, EngineError, DeadlineError: as in `sample`.
        """
        check_form(output)
        limit = Deadline.of(deadline)
        request = repaint(
            self.plan.manifest,
            self._diffusion,
            images,
            mask,
            jump_length=jump_length,
            jump_n_sample=jump_n_sample,
            **arguments,
        )
        return self._executor.images(request, output, progress, limit)

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
        """The variational bound of images in bits per dimension, (DDPM, eq. 5; docs/quality/likelihood.md).

        The noise of image i is that of image `start` + i of the seed's gallery, in draws of its own: the result of an
        image does not depend on the others, the batch size or the threads.

        Args:
            images: uint8 (N, H, W, C).
            labels: class of every image, or one per image; needed by models with classes. The model's null label means
                no class. There is no guidance.
            seed: 0 .. 2^64 - 1, for the noise and the choice of terms.
            start: index of the first image.
            steps: the reverse process's, as in `sample`; by default all T.
            terms: network calls per image, from 2 to the number of steps: a stratified subset of the terms, whose
                weighted sum is an unbiased estimate of the bound; by default all.
            variance: "small", "large" or "learned" (or diffusers' names); by default the plan's.
            clip: `Clip.clamp(limit)` or `Clip.none()`; by default the plan's.
            progress, deadline: as in `sample`.
            options: `spacing` and `steps_offset`.

        Raises:
            OptionError, OptionTypeError: an argument cannot be used; the message says which and why.
            NumericalError: a term is NaN or infinite.
            EngineError: the network failed.
            DeadlineError: the deadline was over before the terms were; the message says how many images were done.
        """
        from pysdk.likelihood.bound import answer, make_question
        from pysdk.runtime.cpu import CpuExecutor

        executor, limit = self._executor, Deadline.of(deadline)
        if not isinstance(executor, CpuExecutor):
            raise OptionError(f"the likelihood is computed on the CPU alone, this sampler is on {self.device!r}")
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
        calls = -(-len(images) // executor.batch_size) * len(question.terms.rows)
        with reporter(progress, calls) as report:

            def advance(bound: _native.Bound, done: int) -> None:
                with told(limit, done, len(images), bound):
                    executor.advance(bound, bound.length, report, limit)

            return answer(
                question,
                executor.open_engine(),
                batch_size=executor.batch_size,
                padded=not executor.batch_invariant,
                threads=executor.threads,
                advance=advance,
                take=executor.take,
            )
