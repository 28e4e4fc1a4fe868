"""Picture files: the size is known and bounded before a pixel is decoded, and the decoder sees little else.

Four formats are read. With Pillow before 13, a TIFF of 1 MB, or the same tables in a JPEG of 300 kB, fill 6 GB as their
entries overlap, and a GIF's comments cost the square of their length. JPEG's application segments and PNG's texts and
profiles, which can be bombs by themselves, are taken out first.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import PysdkError
from pysdk.files.regular_file import read_file, shown

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
NOT_READ = (".gif", ".tif", ".tiff")
"""Suffixes that are refused by name."""
MAX_PIXELS = 1 << 26
"""The most pixels in a picture: 8192x8192."""
MAX_BYTES = 1 << 28
"""The most bytes in its file."""
MAX_SCANS = 64
"""The most scans in a JPEG; each costs a pass over all pixels."""

MAX_CHUNKS = 100_000
"""The most chunks in a PNG; writers make chunks of 8 KiB or more."""

_PNG, _KEPT = b"\x89PNG\r\n\x1a\n", (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_SOI, _SOS, _EOI, _ADOBE = 0xD8, 0xDA, 0xD9, 0xEE


def read_picture(
    path: str | os.PathLike[str],
    error: type[PysdkError],
    *,
    mode: str | None = None,
    size: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """A picture as uint8 (H, W, C).

    Args:
        path: the file.
        error: what is raised.
        mode: "L" (C = 1) or "RGB" (C = 3); by default L for grey pictures and RGB for all others.
        size: (H, W) that it must have, else it is not decoded.

    Raises:
        error: it is no regular file, too large, of another format or size, or damaged.
    """
    with _opened(path, error) as picture:
        width, height = picture.size
        if size is not None and (height, width) != size:
            raise error(f"{shown(path)} has {height}x{width} pixels, expected {size[0]}x{size[1]}; resize it first.")
        try:
            pixels = np.asarray(picture.convert(mode or ("L" if picture.mode == "L" else "RGB")))
        except Exception as reason:  # a damaged picture can raise anything
            raise error(f"{shown(path)} is not a readable picture: {_one_line(reason)}.") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels


def picture_shape(path: str | os.PathLike[str], error: type[PysdkError]) -> tuple[int, int, int]:
    """(H, W, C) that `read_picture` gives, from the header alone. `error` as there."""
    with _opened(path, error) as picture:
        return picture.height, picture.width, 1 if picture.mode == "L" else 3


def _opened(path: str | os.PathLike[str], error: type[PysdkError]) -> Image:
    """A picture whose header was read and whose size can be decoded."""
    from PIL import Image, UnidentifiedImageError

    if Path(path).suffix.lower() in NOT_READ:
        raise error(f"{shown(path)} is not a readable picture: convert it to PNG, JPEG, WebP or BMP first.")
    data = read_file(path, MAX_BYTES, error)
    try:
        if data[:2] == b"\xff\xd8":
            data = b"".join(_without_applications(data))
        elif data.startswith(_PNG):
            data = b"".join(_without_texts(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise error(f"{shown(path)} is not a readable picture: expected PNG, JPEG, WebP or BMP.") from None
    except Exception as reason:  # a damaged header can raise anything
        raise error(f"{shown(path)} is not a readable picture: {_one_line(reason)}.") from None
    if picture.width * picture.height > MAX_PIXELS:
        raise error(
            f"{shown(path)} has {picture.height}x{picture.width} pixels, more than the {MAX_PIXELS:,} that are read; "
            "resize it first."
        )
    return picture


def _without_applications(data: bytes) -> Iterator[bytes]:
    """A JPEG without comments and application segments, except Adobe's, which says how colours are stored."""
    yield data[:2]
    at, scans = 2, 0
    while at + 4 <= len(data):
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if data[at] != 0xFF:
            raise ValueError("its segments are damaged")
        if marker == 0xFF:  # filling
            at += 1
            continue
        if marker == _EOI or length < 2:
            break
        end = at + 2 + length
        if marker == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise ValueError(f"it has more than {MAX_SCANS} scans")
            end = _end_of_scan(data, end)
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or marker == _ADOBE:
            yield data[at:end]
        at = end
    yield b"\xff\xd9" if data.endswith(b"\xff\xd9") else b""


def _without_texts(data: bytes) -> Iterator[bytes]:
    """A PNG with only the chunks that say its pixels: no texts, profiles, EXIF or animation."""
    yield _PNG
    at = start = len(_PNG)
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind not in _KEPT:
            yield data[start:at]
            start = end
        at = end
    else:
        raise ValueError(f"it has more than {MAX_CHUNKS:,} chunks")
    yield data[start:]


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the next marker is, behind a scan's coded bytes; zeros and restarts belong to them."""
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7:
            return at
        at += 2
    return len(data)


def _one_line(reason: Exception) -> str:
    return " ".join(str(reason).split())[:200] or type(reason).__name__
