"""Inpainting (RePaint, Lugmayr et al. 2022, https://arxiv.org/abs/2201.09865): all in one table.

After each reverse row the kept region is replaced by the image diffused to the same timestep (eq. 8), and the chain
jumps back: a row that diffuses x over some timesteps at once, without the network, and the same reverse rows again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pysdk.checks import whole_number
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import StepTable
from pysdk.diffusion.timesteps import Steps
from pysdk.errors import OptionError, OptionTypeError
from pysdk.plan.manifest import Manifest, ModelInfo
from pysdk.request.guidance import with_columns
from pysdk.request.request import Noise, Request, make_request
from pysdk.tasks.forward_rows import forward_row, require_independent_rows, with_rows
from pysdk.tasks.given_images import as_state, refuse, with_null_label
from pysdk.tasks.partial_chain import resolve_course


def repaint(
    manifest: Manifest,
    schedule: Schedule,
    images: Any,
    mask: ArrayLike,
    *,
    jump_length: int,
    jump_n_sample: int,
    noise: Noise | None = None,
    initial: object = None,
    **arguments: Any,
) -> Request:
    """The request behind `Sampler.inpaint`."""
    x = as_state("images", images, manifest.model)
    keep = kept_region(mask, len(x), manifest.model)
    refuse(initial=initial)
    if noise is not None and not callable(noise):
        raise OptionError("noise is not a callable; inpainting also draws the noise of the kept region, so give one")

    def table(solver: Any, steps: Steps, options: dict[str, Any]) -> StepTable:
        course = resolve_course(manifest, schedule, solver, steps, options)
        once = course.table(manifest, schedule)
        require_independent_rows(once, course.solver, "inpainting")
        if not np.array_equal(once.timesteps, course.timesteps):
            raise OptionError(f"solver {course.solver!r} has not one row per timestep; use 'ddpm' or 'ddim'")
        length = whole_number("jump_length", jump_length, 1, 2**24)
        samples = whole_number("jump_n_sample", jump_n_sample, 1, 2**24)
        if samples > 1 and length >= len(once):
            raise OptionError(
                f"jump_length is {length}, but the chain has {len(once)} steps, so it would never jump; use a shorter "
                "jump, more steps, or jump_n_sample=1"
            )
        return with_jumps(once, schedule, length, samples)

    request = make_request(manifest, schedule, len(x), table, noise=noise, **with_null_label(manifest, **arguments))
    return dataclasses.replace(request, known=x, keep=keep)


def with_jumps(table: StepTable, schedule: Schedule, jump_length: int, jump_n_sample: int) -> StepTable:
    """The rows of `table`, each keeping the known region, with jumps back among them (RePaint, appendix B)."""
    total = len(table)
    abar = np.append(schedule.alphas_cumprod[table.timesteps.astype(np.int64)], 1.0)
    kept = with_columns(table, known=np.sqrt(abar[1:]), known_noise=np.sqrt(1 - abar[1:])).rows
    rows = []
    for start, end in moves(total, jump_length, jump_n_sample):
        if end == start - 1:  # row k goes from position K-1-k to the one below it
            rows.append(kept[total - start : total - start + 1])
            continue
        here, there = abar[total - start], abar[total - end]
        timestep = int(table.timesteps[total - end])
        rows.append(forward_row(timestep, np.sqrt(there / here), np.sqrt(1 - there / here)))
    return with_rows(table, np.concatenate(rows))


def moves(total: int, jump_length: int, jump_n_sample: int) -> Iterator[tuple[int, int]]:
    """Moves between positions, from `total` (noise) to 0 (clean): one down, or a jump up.

    Position p > 0 is the p-th lowest timestep. From 1 on, at every `jump_length`-th position that leaves room for it,
    the chain jumps up, until the stretch above was run `jump_n_sample` times.
    """
    left = dict.fromkeys(range(1, total - jump_length + 1, jump_length), jump_n_sample - 1)
    position = total
    while position > 0:
        yield position, position - 1
        position -= 1
        if left.get(position, 0) > 0:
            left[position] -= 1
            yield position, position + jump_length
            position += jump_length


def kept_region(mask: ArrayLike, n: int, model: ModelInfo) -> NDArray[np.uint8]:
    """uint8 (n, C, H, W), 1 where `mask` is False.

    Raises:
        OptionTypeError: the mask is not of numbers.
        OptionError: its shape is another, or it holds something between False and True.
    """
    _, height, width = model.shape
    array = np.asarray(mask)
    if array.dtype.kind not in "bfiu":
        raise OptionTypeError(f"mask has dtype {array.dtype}, expected bool, True where to draw")
    if array.shape not in ((height, width), (n, height, width)):
        raise OptionError(
            f"mask has shape {array.shape}, expected ({height}, {width}) for all images or ({n}, {height}, {width})"
        )
    values = np.unique(array)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise OptionError(
            f"mask holds {len(values)} different values, expected two: False (0) where to keep and True where to draw"
        )
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise OptionError("mask holds NaN, expected False (0) where to keep and True where to draw")
    if not array.any():
        raise OptionError("mask is False everywhere, so there is nothing to draw")
    kept = np.broadcast_to((array == 0).astype(np.uint8).reshape(-1, 1, height, width), (n, *model.shape))
    return np.ascontiguousarray(kept)
