"""Precision and recall of generated images (Kynkaanniemi et al., 2019, https://arxiv.org/abs/1904.06991).

A set's manifold is the union of balls around its features, each as large as the distance to its k-th nearest
neighbour in the set (eq. 1). Precision is the share of generated features in the manifold of the real ones, recall the
share of real features in that of the generated ones (eq. 2).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pysdk.distribution import install_extra, require
from pysdk.errors import DataError, OptionError

NEIGHBOURS = 3
_BLOCK = 1000
"""Rows of the distance table computed at a time."""


def precision_recall(
    real: NDArray[np.floating], generated: NDArray[np.floating], *, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """(precision, recall), both in [0, 1].

    Args:
        real, generated: features (M, D) and (N, D); the paper compares sets of one size.
        neighbours: k.

    Raises:
        DataError: the dimensions differ.
        OptionError: k is below 1, or a set has no k-th neighbour.
        MissingDependencyError: scipy is not installed.
    """
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise DataError(f"Features have shapes {real.shape} and {generated.shape}; expected (M, D) and (N, D).")
    if not 1 <= neighbours < min(len(real), len(generated)):
        raise OptionError(
            f"neighbours is {neighbours}, expected from 1 to one less than the {min(len(real), len(generated))} "
            "features of the smaller set"
        )
    a, b = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    return _share_within(b, a, _radii(a, neighbours)), _share_within(a, b, _radii(b, neighbours))


def _radii(features: NDArray[np.float64], neighbours: int) -> NDArray[np.float64]:
    """Squared distance of each feature to its k-th nearest neighbour; the nearest of all is itself."""
    kth = [
        np.partition(distances, neighbours, axis=1)[:, neighbours]
        for distances in _squared_distances(features, features)
    ]
    return np.concatenate(kth)


def _share_within(features: NDArray[np.float64], centres: NDArray[np.float64], radii: NDArray[np.float64]) -> float:
    """The share of features in at least one of the balls."""
    inside = [(distances <= radii).any(axis=1) for distances in _squared_distances(features, centres)]
    return float(np.concatenate(inside).mean())


def _squared_distances(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Block by block of rows; from differences, so that equal distances are equal numbers."""
    require("scipy", install_extra("evaluate"))
    from scipy.spatial.distance import cdist

    for start in range(0, len(rows), _BLOCK):
        yield cdist(rows[start : start + _BLOCK], columns, "sqeuclidean")
