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
        running = RunningMoments()
        running.add(features)
        return running.moments()


class RunningMoments:
    """Moments of features that come in parts, in memory for D x D numbers, however many come.

    A part's own mean and scatter are merged into the whole's (Chan et al., 1979), so nothing cancels.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: NDArray[np.float64] = np.zeros(0)
        self._scatter: NDArray[np.float64] = np.zeros((0, 0))

    def add(self, features: NDArray[np.floating]) -> None:
        """Take in features (n, D), n >= 0.

        Raises:
            DataError: they have another shape, or another D than those before.
            NumericalError: a feature is NaN or infinite.
        """
        if features.ndim != 2 or (self.count and features.shape[1] != self._mean.size):
            expected = self._mean.size if self.count else "D"
            raise DataError(f"Features have shape {features.shape}; expected (n, {expected}).")
        if not np.isfinite(features).all():
            raise NumericalError("A feature is NaN or infinite, so its set has no moments.")
        count = len(features)
        if not count:
            return
        mean = features.mean(axis=0, dtype=np.float64)
        centred = features - mean
        scatter = centred.T @ centred
        if self.count:
            total = self.count + count
            shift = mean - self._mean
            self._scatter += scatter + np.outer(shift, shift) * (self.count * count / total)
            self._mean = self._mean + shift * (count / total)
        else:
            self._mean, self._scatter = mean, scatter
        self.count += count

    def moments(self) -> Moments:
        """Mean and unbiased covariance of all so far. DataError for fewer than 2."""
        if self.count < 2:
            raise DataError(f"There are {self.count} features; a covariance needs 2 or more.")
        return Moments(self._mean, self._scatter / (self.count - 1))


def frechet_distance(first: Moments, second: Moments) -> float:
    """d^2 of two normal distributions, 0 or more.

    Both roots are taken of symmetric matrices, by eigenvalues; negative ones are rounding errors and count as 0.

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
