"""The result: float chain state -> uint8 images, and those as grids, pictures, animations, arrays and folders."""

import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import whole_number
from pysdk.errors import NumericalError, OptionError, OptionTypeError, OutputError
from pysdk.files.atomic import atomic_file, atomic_folder, check_target
from pysdk.machine.float_state import standard_floats

if TYPE_CHECKING:
    from PIL import Image

Output = Literal["uint8", "float32", "pil", "dlpack"]
"""The forms in which a sampler returns images."""

_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}
_VISIBLE = 56
"""Pixels of a tile's longer side below which a grid enlarges its tiles."""
_PREVIEW = 100
"""Images that a notebook shows of a larger batch."""
_WHITE = 255
_LARGEST = 1 << 20
"""Columns, padding and scale of a grid."""


@standard_floats
def to_uint8(x: NDArray[np.float32], value_range: tuple[float, float] = (-1.0, 1.0)) -> NDArray[np.uint8]:
    """Images of a chain's state: float32 (N, C, H, W) in [low, high] to uint8 (N, H, W, C), contiguous.

    A value v becomes round((min(max(v, low), high) - low) * (255 / (high - low))): float32 operations, each rounded on
    its own, and halves rounded to even. So for the usual range -1 -> 0, 0 -> 128, 1 -> 255.

    Raises:
        OptionTypeError: not float32.
        OptionError: not four-dimensional.
        NumericalError: a NaN; infinities are clipped.
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        raise OptionTypeError(f"images are made from a float32 array, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 4:
        raise OptionError(f"images are made from an array of shape (N, C, H, W), got {x.shape}")
    low, high = value_range
    scaled = np.clip(x, np.float32(low), np.float32(high))
    broken = np.isnan(scaled).any(axis=(1, 2, 3))
    if broken.any():
        raise NumericalError(f"image {int(np.argmax(broken))} of {len(x)} has NaN in it and cannot be shown")
    scaled -= np.float32(low)
    scaled *= np.float32(255 / (high - low))
    np.rint(scaled, out=scaled)
    return np.ascontiguousarray(scaled.transpose(0, 2, 3, 1).astype(np.uint8))


@standard_floats
def from_uint8(images: NDArray[np.uint8], value_range: tuple[float, float] = (-1.0, 1.0)) -> NDArray[np.float32]:
    """The way back: uint8 (N, H, W, C) to float32 (N, C, H, W), u -> low + u (high - low) / 255, rounded once."""
    low, high = value_range
    levels = np.linspace(low, high, 256).astype(np.float32)
    return np.ascontiguousarray(levels[np.asarray(images)].transpose(0, 3, 1, 2))


class Images(np.ndarray[Any, np.dtype[np.uint8]]):
    """A uint8 array (N, H, W, C) that shows itself as a grid in a notebook and knows how to save itself.

    It is an ordinary array everywhere else. Pictures need C = 1 (gray) or C = 3 (RGB); `.npz` takes any C.
    """

    def __new__(cls, array: NDArray[np.uint8]) -> "Images":
        """View of `array`, not a copy. OptionTypeError or OptionError unless it is uint8 (N, H, W, C)."""
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
            got = getattr(array, "dtype", type(array).__name__)
            raise OptionTypeError(f"Images is made from a uint8 array, got {got}; see pysdk.images.to_uint8")
        if array.ndim != 4:
            raise OptionError(f"Images is made from an array of shape (N, H, W, C), got {array.shape}")
        return array.view(cls)

    def grid(self, columns: int | None = None, padding: int = 2, scale: int | None = None) -> "Image.Image":
        """All images in one picture, row by row, white between them and nothing around them.

        Args:
            columns: images in a row; by default ceil(sqrt(N)), which is about square.
            padding: white pixels between two images, not enlarged.
            scale: each pixel becomes scale x scale pixels; by default the least that makes the longer side of an image
                56 pixels or more, so 2 for 28x28 and 1 from 56 on.

        Raises:
            OptionError: an option out of range, no images, or neither 1 nor 3 channels.
        """
        count, height, width, channels = self._picture_shape()
        if count == 0:
            raise OptionError("there are no images to make a grid of; sample at least one")
        columns = math.ceil(math.sqrt(count)) if columns is None else whole_number("columns", columns, 1, _LARGEST)
        columns = min(columns, count)
        scale = math.ceil(_VISIBLE / max(height, width)) if scale is None else whole_number("scale", scale, 1, _LARGEST)
        padding = whole_number("padding", padding, 0, _LARGEST)
        rows = math.ceil(count / columns)
        tile_height, tile_width = height * scale, width * scale
        step_y, step_x = tile_height + padding, tile_width + padding
        canvas = np.full((rows * step_y - padding, columns * step_x - padding, channels), _WHITE, np.uint8)
        for index, image in enumerate(np.asarray(self)):
            y, x = index // columns * step_y, index % columns * step_x
            canvas[y : y + tile_height, x : x + tile_width] = image.repeat(scale, 0).repeat(scale, 1)
        return _picture(canvas)

    def to_pil(self) -> "list[Image.Image]":
        """Each image as a picture of its own size, "L" or "RGB". OptionError unless it has 1 or 3 channels."""
        self._picture_shape()
        return [_picture(image) for image in np.asarray(self)]

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        columns: int | None = None,
        padding: int = 2,
        scale: int | None = None,
    ) -> None:
        """Write the images in the form that `path` asks for, whole or not at all.

        .png .jpg .jpeg .webp: one grid, with the options of `grid`. .npz: the array itself as `arr_0`, which is what
        ADM's evaluator reads. No suffix, or a slash at the end: a new folder of 00000.png, 00001.png, ...

        Raises:
            OptionError: another suffix, or as `grid`.
            OutputError: it cannot be written.
        """
        suffix = check_output(path)
        if suffix in ("", ".npz") and (columns, padding, scale) != (None, 2, None):
            raise OptionError("columns, padding and scale are options of a grid, which this path does not ask for")
        if not suffix:
            pictures = self.to_pil()
            digits = max(5, len(str(len(pictures) - 1)))
            with atomic_folder(path) as folder:
                for index, picture in enumerate(pictures):
                    (folder / f"{index:0{digits}}.png").write_bytes(_encode(picture, ".png"))
        elif suffix == ".npz":
            if self.ndim != 4 or self.dtype != np.uint8:  # what became of them by slicing or arithmetic
                raise OptionError(f"images are saved as uint8 (N, H, W, C), this is {self.dtype} {self.shape}")
            with atomic_file(path) as file:
                np.savez(file, np.asarray(self))
        else:
            data = _encode(self.grid(columns, padding, scale), suffix)
            with atomic_file(path) as file:
                file.write(data)

    def _picture_shape(self) -> tuple[int, int, int, int]:
        if self.ndim != 4 or self.dtype != np.uint8 or 0 in self.shape[1:]:
            raise OptionError(f"pictures are uint8 (N, H, W, C), this is {self.dtype} {self.shape}; slice with [i:i+1]")
        count, height, width, channels = self.shape
        check_channels(channels)
        return count, height, width, channels

    def _repr_png_(self) -> bytes | None:
        """The first 100 images as a grid, for notebooks; None if this is no batch of pictures."""
        if self.ndim != 4 or self.dtype != np.uint8 or 0 in self.shape or self.shape[-1] not in (1, 3):
            return None
        return _encode(self[:_PREVIEW].view(Images).grid(), ".png")


def check_form(output: object) -> None:
    """OptionError unless `output` is a form that `in_form` knows."""
    if output not in ("uint8", "float32", "pil", "dlpack"):
        raise OptionError(f"output is {output!r}, expected 'uint8', 'float32', 'pil' or 'dlpack'")


def in_form(x: NDArray[np.float32], output: Output, value_range: tuple[float, float]) -> Any:
    """A chain's state, float32 (N, C, H, W), as itself, as `Images` or as a list of pictures."""
    if output in ("float32", "dlpack"):  # a numpy array speaks DLPack
        return x
    images = Images(to_uint8(x, value_range))
    return images.to_pil() if output == "pil" else images


def save_gif(
    frames: Iterable[NDArray[np.uint8]],
    path: str | os.PathLike[str],
    *,
    duration: int = 80,
    hold: int = 1000,
    columns: int | None = None,
    padding: int = 2,
    scale: int | None = None,
) -> None:
    """Write an animation, each frame the grid of one batch: the reverse process as it ran. It repeats forever.

    Args:
        frames: uint8 (N, H, W, C) each, all of one shape. Gray is exact, RGB is reduced to 256 colours per frame.
        path: ends in .gif.
        duration: milliseconds of a frame, a multiple of 10 as GIF counts in hundredths of a second.
        hold: milliseconds of the last frame, likewise.
        columns, padding, scale: as in `Images.grid`.

    Equal frames in a row are stored as one that lasts as long as all of them.

    Raises:
        OptionError: an option out of range, no frames, or frames of different shapes.
        OutputError: it cannot be written.
    """
    if _suffix(path) != ".gif":
        raise OptionError(f"an animation is saved as .gif, got {os.fspath(path)!r}")
    for name, value in (("duration", duration), ("hold", hold)):
        if whole_number(name, value, 20, 1 << 40) % 10 or value > 655_350:
            raise OptionError(f"{name} is {value}, expected a multiple of 10 milliseconds up to 655350")
    batches = [Images(frame) for frame in frames]
    if not batches or len({batch.shape for batch in batches}) > 1:
        shapes = sorted({batch.shape for batch in batches})
        raise OptionError(f"an animation needs frames of one shape, got {shapes or 'no frames'}")
    pictures = [batch.grid(columns, padding, scale) for batch in batches]
    durations = [duration] * (len(pictures) - 1) + [hold]
    options = {"save_all": True, "append_images": pictures[1:], "duration": durations, "loop": 0}
    data = _encode(pictures[0], ".gif", "GIF", options)
    with atomic_file(path) as file:
        file.write(data)


def check_output(path: str | os.PathLike[str], *, animation: bool = False) -> str:
    """The suffix of a path that images can be saved at, empty for a folder; for asking before they are drawn.

    Raises:
        OptionError: there is no such form of output; ".gif" is one only if `animation`.
        OutputError: it could not be written, see `pysdk.files.atomic.check_target`.
    """
    suffix = _suffix(path)
    if suffix not in ("", ".npz", *_FORMATS, *([".gif"] if animation else [])):
        expected = f"{', '.join(_FORMATS)}, .npz, or / at the end for a folder"
        raise OptionError(f"images cannot be saved as {suffix!r}; use {expected}")
    check_target(path, folder=not suffix)
    return suffix


def check_channels(channels: int) -> None:
    """OptionError unless pictures can have so many."""
    if channels not in (1, 3):
        raise OptionError(f"pictures have 1 or 3 channels, these have {channels}; save them as .npz")


def _suffix(path: str | os.PathLike[str]) -> str:
    """In lower case, with its dot; empty for a folder."""
    if not isinstance(path, str | os.PathLike):
        raise OptionTypeError(f"an output path is a str or a Path, got {type(path).__name__}")
    return "" if os.fspath(path).endswith(("/", os.sep)) else Path(path).suffix.lower()


def _picture(pixels: NDArray[np.uint8]) -> "Image.Image":
    """(H, W, 1) or (H, W, 3) as a Pillow image."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def _encode(picture: "Image.Image", suffix: str, kind: str = "", options: dict[str, Any] | None = None) -> bytes:
    """Encoded in memory: Pillow may hide a failed write, and the size limits of formats show here."""
    if not kind:
        kind, options = _FORMATS[suffix]
    buffer = io.BytesIO()
    try:
        picture.save(buffer, kind, **(options or {}))
    except (OSError, ValueError, KeyError, OverflowError) as error:
        size = f"{picture.width}x{picture.height}"
        raise OutputError(f"a picture of {size} cannot be encoded as {suffix}: {error}; use .npz or fewer") from error
    return buffer.getvalue()
