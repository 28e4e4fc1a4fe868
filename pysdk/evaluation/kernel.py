"""The kernel distance between two sets of features, the KID (Binkowski et al., 2018, https://arxiv.org/abs/1801.01401).

MMD^2 with k(x, y) = (x.y / D + 1)^3, by the unbiased estimate, so it may be below 0:

    1/(m(m-1)) sum_{i != j} k(x_i, x_j) + 1/(n(n-1)) sum_{i != j} k(y_i, y_j) - 2/(mn) sum_{i, j} k(x_i, y_j)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import DataError, OptionError

SUBSET_SIZE = 1000
SUBSETS = 100


@dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation over `subsets` pairs of random subsets with `subset_size` features each."""

    mean: float
    deviation: float
    subsets: int
    subset_size: int


def polynomial_mmd2(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """The unbiased estimate of all features, (M, D) and (N, D), in float64.

    Raises:
        DataError: the dimensions differ, or a set has fewer than 2.
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise DataError(f"Features have shapes {x.shape} and {y.shape}; expected (M, D) and (N, D), both of 2 or more.")

    def within(z: NDArray[np.float64]) -> float:
        kernel = (z @ z.T / z.shape[1] + 1) ** 3
        return float((kernel.sum() - np.trace(kernel)) / (len(z) * (len(z) - 1)))

    across = (x @ y.T / x.shape[1] + 1) ** 3
    return within(x) + within(y) - 2 * float(across.mean())


def kernel_distance(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    *,
    subsets: int = SUBSETS,
    subset_size: int | None = None,
    seed: int = 0,
) -> KernelDistance:
    """`polynomial_mmd2` of random subsets, drawn without replacement.

    Args:
        first, second: features (M, D) and (N, D).
        subsets: how many.
        subset_size: features of each set in one; by default 1000, or all of the smaller set if it has fewer.
        seed: makes the choice.

    Raises:
        OptionError: `subsets` is below 1, or `subset_size` outside [2, min(M, N)].
        DataError: as `polynomial_mmd2`.
    """
    smaller = min(len(first), len(second))
    size = min(SUBSET_SIZE, smaller) if subset_size is None else subset_size
    if subsets < 1:
        raise OptionError(f"subsets is {subsets}, expected 1 or more")
    if subset_size is not None and not 2 <= size <= smaller:
        raise OptionError(f"subset_size is {size}, expected from 2 to the {smaller} features of the smaller set")
    rng = np.random.default_rng(seed)
    values = [
        polynomial_mmd2(
            first[rng.choice(len(first), size, replace=False)], second[rng.choice(len(second), size, replace=False)]
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)
