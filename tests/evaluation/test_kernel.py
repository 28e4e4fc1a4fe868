"""The kernel distance against its definition as loops, and against moments of normal distributions."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from pysdk.errors import DataError, OptionError
from pysdk.evaluation.kernel import kernel_distance, polynomial_mmd2

RNG = np.random.default_rng(0)


def loops(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The sums of the module's docstring, term by term."""

    def k(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float((sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3)

    xx = [k(a, b) for a, b in itertools.permutations(x, 2)]
    yy = [k(a, b) for a, b in itertools.permutations(y, 2)]
    return float(np.mean(xx) + np.mean(yy) - 2 * np.mean([k(a, b) for a in x for b in y]))


def test_against_the_definition() -> None:
    x, y = RNG.normal(size=(13, 5)), RNG.normal(0.5, 2, size=(9, 5))
    assert polynomial_mmd2(x, y) == pytest.approx(loops(x, y), rel=1e-10)
    whole = kernel_distance(x, y, subsets=1, subset_size=9)
    assert whole.mean != pytest.approx(loops(x, y))  # 9 of the 13
    assert kernel_distance(x[:9], y, subsets=3).mean == pytest.approx(loops(x[:9], y), rel=1e-10)


def test_normal_distributions_in_closed_form() -> None:
    """One dimension: E k(x, y) = sum of binomials (3, i) E[x^i] E[y^i], and MMD^2 = sum (3, i) (E[x^i] - E[y^i])^2."""
    means, deviations = (0.0, 0.4), (1.0, 1.3)
    moments = [(1, m, m**2 + s**2, m**3 + 3 * m * s**2) for m, s in zip(means, deviations, strict=True)]
    truth = sum(b * (p - q) ** 2 for b, p, q in zip((1, 3, 3, 1), *moments, strict=True))
    values = [
        polynomial_mmd2(*(RNG.normal(m, s, (400, 1)) for m, s in zip(means, deviations, strict=True)))
        for _ in range(100)
    ]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - truth) < 4 * error
    assert error < 0.1 * truth
    same = [polynomial_mmd2(RNG.normal(size=(100, 3)), RNG.normal(size=(100, 3))) for _ in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(len(same))  # unbiased: below 0 as often as above
    assert min(same) < 0 < max(same)


def test_subsets() -> None:
    x, y = RNG.normal(size=(60, 4)), RNG.normal(1, 1, size=(50, 4))
    found = kernel_distance(x, y, subsets=20, subset_size=10, seed=1)
    assert (found.subsets, found.subset_size) == (20, 10)
    assert found == kernel_distance(x, y, subsets=20, subset_size=10, seed=1)
    assert found != kernel_distance(x, y, subsets=20, subset_size=10, seed=2)
    assert found.deviation > 0
    assert kernel_distance(x, y, subsets=1).subset_size == 50


def test_bad_arguments_are_refused() -> None:
    x = np.zeros((5, 2))
    for options in ({"subsets": 0}, {"subset_size": 6}, {"subset_size": 1}):
        with pytest.raises(OptionError, match=str(next(iter(options.values())))):
            kernel_distance(x, x, **options)
    with pytest.raises(DataError, match=r"\(5, 2\) and \(5, 3\)"):
        polynomial_mmd2(x, np.zeros((5, 3)))
    with pytest.raises(DataError, match="both of 2 or more"):
        polynomial_mmd2(x, x[:1])
