"""Samples kept in a folder while they are drawn, so that a stopped evaluation resumes where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.datasets.npz import npz
from pysdk.errors import DataError, OptionError
from pysdk.files.atomic import atomic_file, make_folder
from pysdk.files.regular_file import read_object, shown

SETTINGS = "settings.json"
CHUNK = 500
"""Images in a file."""


def collect(
    draw: Callable[[int, int], NDArray[np.uint8]],
    count: int,
    folder: Path,
    settings: dict[str, Any],
    *,
    chunk: int = CHUNK,
) -> Iterator[NDArray[np.uint8]]:
    """Samples 0 .. count - 1, drawn in chunks that are kept in a folder, so that no chunk is drawn twice.

    Args:
        draw: (start, n) -> images uint8 (n, H, W, C).
        count: images in all; may grow from call to call.
        folder: where the chunks are, created if there is none.
        settings: what the images depend on, JSON values; a folder belongs to one set of them.
        chunk: images in a file.

    Yields:
        uint8 (n, H, W, C), n = chunk but for the last.

    Raises:
        OptionError: the folder holds samples with other settings.
        DataError: a chunk is damaged.
    """
    settings = {**settings, "chunk": chunk}
    make_folder(folder)
    if not (folder / SETTINGS).exists():
        with atomic_file(folder / SETTINGS) as file:
            file.write(json.dumps(settings, indent=2).encode())
    try:
        known = read_object(folder / SETTINGS, DataError)
    except DataError as error:
        raise DataError(f"{error} Remove {shown(folder)} to start again.") from None
    if known != json.loads(json.dumps(settings)):
        raise OptionError(
            f"{folder} holds samples drawn with {str(known)[:300]}, not {settings}; choose another --work folder."
        )
    for start in range(0, count, chunk):
        path = folder / f"{start:08d}.npz"
        size = min(chunk, count - start)
        found = npz(path).images.transpose(0, 2, 3, 1) if path.exists() else np.empty((0, 1, 1, 1), np.uint8)
        if len(found) < size:  # not there, or the shorter last chunk of a smaller count
            found = draw(start, size)
            with atomic_file(path) as file:
                np.savez_compressed(file, images=found)
        yield found[:size]
