"""A data set in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """Images in memory.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), or None.
        class_names: one name per class, or None.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or 0 in self.images.shape:
            raise DataError(
                f"Images are {self.images.dtype} of shape {self.images.shape}; expected uint8 (N, C, H, W), N >= 1."
            )
        if self.labels is None:
            return
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.images),):
            raise DataError(
                f"Labels are {self.labels.dtype} of shape {self.labels.shape}; expected int64, one for each of the "
                f"{len(self.images)} images."
            )
        low, high, classes = self.labels.min(), self.labels.max(), self.num_classes or 0
        if low < 0 or high >= classes:
            raise DataError(f"Labels go from {low} to {high}; expected 0 to {classes - 1}.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int | None:
        """One more than the largest label, or the number of class names; None without labels."""
        if self.labels is None:
            return None
        return len(self.class_names) if self.class_names else int(self.labels.max()) + 1
