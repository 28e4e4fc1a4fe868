"""A data set in an .npz file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pysdk.datasets.dataset import Dataset
from pysdk.errors import DataError
from pysdk.files.array_file import Npz
from pysdk.machine.memory import given

MAX_NAMES = 1 << 24
"""The most bytes of class names in an .npz."""


def npz(path: Path) -> Dataset:
    """An .npz with `images` uint8 (N, H, W) or (N, H, W, C) and optionally `labels` (N,) and `class_names`."""
    limit = given() // 2
    with Npz(path, DataError) as file:
        if "images" not in file.names:
            raise DataError(f"{path} holds {file.names[:10]}; expected an array 'images'.")
        images = file.read("images", limit)
        labels = file.read("labels", limit) if "labels" in file.names else None
        texts = file.read("class_names", MAX_NAMES) if "class_names" in file.names else None
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise DataError(f"images in {path} have shape {images.shape}; expected (N, H, W) or (N, H, W, C).")
    if labels is not None and labels.dtype.kind not in "iu":
        raise DataError(f"labels in {path} are {labels.dtype}; expected whole numbers.")
    names = None if texts is None else tuple(str(name) for name in texts.reshape(-1))
    channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return Dataset(channels_first, None if labels is None else labels.astype(np.int64), names)
