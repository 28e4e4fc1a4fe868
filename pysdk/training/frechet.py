"""The Frechet distance between two sets of features, as in the FID (Heusel et al., 2017, https://arxiv.org/abs/1706.08500).

d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1^1/2 C_2 C_1^1/2)^1/2)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import DataError, NumericalError


@dataclass(frozen=True, eq=False)
class Moments:
    """The normal distribution that stands for a set of features.

    Attributes:
        mean: float64 (D,).
        covariance: float64 (D, D), symmetric.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Moments:
        """Sample mean and unbiased covariance of features (N, D), in float64.

        Raises:
            DataError: they are not of this shape, or N < 2.
            NumericalError: a feature is NaN or infinite.
        """
        if features.ndim != 2 or len(features) < 2:
            raise DataError(f"Features have shape {features.shape}; expected (N, D) with N >= 2.")
        if not np.isfinite(features).all():
            raise NumericalError("A feature is NaN or infinite, so its set has no moments.")
        mean = features.mean(axis=0, dtype=np.float64)
        centred = features - mean
        return cls(mean, centred.T @ centred / (len(features) - 1))


def frechet_distance(first: Moments, second: Moments) -> float:
    """d^2 of two normal distributions, 0 or more.

    Both roots are of symmetric matrices, by their eigenvalues; those below 0 are rounding errors and count as 0.

    Raises:
        DataError: the distributions have different dimensions.
    """
    if first.mean.shape != second.mean.shape:
        raise DataError(f"Features of {first.mean.size} and {second.mean.size} dimensions cannot be compared.")
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ second.covariance @ root)
    shift = first.mean - second.mean
    trace = np.trace(first.covariance) + np.trace(second.covariance) - 2 * np.sqrt(product.clip(min=0)).sum()
    return max(0.0, float(shift @ shift + trace))
