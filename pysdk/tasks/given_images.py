"""Images that are given: as the state of a chain, and the request for a chain on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.diffusion.schedule import Schedule
from pysdk.errors import OptionError, OptionTypeError
from pysdk.images import from_uint8
from pysdk.plan.manifest import Manifest, ModelInfo
from pysdk.request.request import MakeTable, Request, make_request

Float = NDArray[np.float32]


def as_state(name: str, images: Any, model: ModelInfo) -> Float:
    """Images as float32 (n, C, H, W) in the model's value range.

    Args:
        name: the argument's, for messages.
        images: uint8 (n, H, W, C), float32 (n, C, H, W), or a list of pictures.
        model: whose images they should be.

    Raises:
        OptionError: the shape or size differs, or values are outside the range or not finite.
        OptionTypeError: neither uint8 nor float32.
    """
    channels, height, width = model.shape
    if isinstance(images, (list, tuple)):
        images = _stacked(name, images, model)
    if not isinstance(images, np.ndarray) or images.dtype not in (np.uint8, np.float32):
        found = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise OptionTypeError(
            f"{name} is {found}, expected uint8 (n, {height}, {width}, {channels}), float32 "
            f"(n, {channels}, {height}, {width}) or a list of pictures"
        )
    if images.dtype == np.uint8:
        if images.ndim != 4 or images.shape[1:] != (height, width, channels):
            raise OptionError(
                f"{name} is uint8 of shape {images.shape}, expected (n, {height}, {width}, {channels}); resize or "
                "convert them"
            )
        return from_uint8(images, model.value_range)
    if images.ndim != 4 or images.shape[1:] != model.shape:
        raise OptionError(f"{name} is float32 of shape {images.shape}, expected (n, {channels}, {height}, {width})")
    low, high = model.value_range
    if not np.logical_and(images >= low, images <= high).all():
        raise OptionError(
            f"{name} holds values from {images.min():g} to {images.max():g}, expected {low:g} to {high:g}, the value "
            "range of the model; scale or clip them"
        )
    return np.ascontiguousarray(images)


def one_as_state(name: str, image: Any, model: ModelInfo) -> Float:
    """One image, uint8 (H, W, C), float32 (C, H, W) or a picture, as float32 (1, C, H, W); errors as `as_state`."""
    return as_state(name, image[None] if isinstance(image, np.ndarray) else [image], model)


def from_images(
    manifest: Manifest,
    schedule: Schedule,
    x: Float,
    make_table: MakeTable,
    /,
    *,
    noise: object = None,
    initial: object = None,
    **arguments: Any,
) -> Request:
    """The request of a chain that starts from `x`, float32 (n, C, H, W); `arguments` are those of `make_request`."""
    refuse(noise=noise, initial=initial)
    return make_request(manifest, schedule, len(x), make_table, initial=x, **with_null_label(manifest, **arguments))


def refuse(**arguments: object) -> None:
    """OptionError if one of these arguments of `Sampler.sample` is given to a task that does not take it."""
    for name, value in arguments.items():
        if value is not None:
            raise OptionError(f"a chain on given images has no option {name!r}; leave it out")


def with_null_label(
    manifest: Manifest,
    *,
    labels: object = None,
    guidance_scale: object = None,
    classifier_scale: object = None,
    **others: Any,
) -> dict[str, Any]:
    """Arguments of `make_request` for given images, whose class is the null label unless it is said.

    Raises:
        OptionError: the class is needed, or guidance is asked for without one.
    """
    model = manifest.model
    if labels is None and classifier_scale is not None:
        raise OptionError("classifier_scale is given without labels; say which class the images should be of")
    if labels is None and model.num_classes is not None:
        if model.null_label is None:
            raise OptionError(f"labels are needed: {model.name!r} has {model.num_classes} classes and no null label")
        if guidance_scale is not None:
            raise OptionError(
                "guidance_scale is given without labels, so there is nothing to guide to; give labels too"
            )
        labels, guidance_scale = model.null_label, 1.0
    return {"labels": labels, "guidance_scale": guidance_scale, "classifier_scale": classifier_scale, **others}


def _stacked(name: str, pictures: Any, model: ModelInfo) -> NDArray[Any]:
    """Pictures or arrays of one size as one array; grey ones get their channel."""
    channels, height, width = model.shape
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    for index, picture in enumerate(pictures):
        found = getattr(picture, "mode", mode)  # of Pillow; a palette's indices would pass for levels of grey
        if mode is not None and found != mode:
            raise OptionError(
                f"picture {index} of {name} has mode {found!r}, expected {mode!r}; use picture.convert({mode!r})"
            )
    arrays = [np.asarray(picture) for picture in pictures]
    arrays = [array[:, :, None] if array.ndim == 2 else array for array in arrays]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise OptionError(f"{name} have shapes {shapes}, expected one size, {height}x{width}; resize or convert them")
    return np.stack(arrays) if arrays else np.zeros((0, height, width, channels), np.uint8)
