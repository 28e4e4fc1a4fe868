"""The Frechet distance against closed forms and against scipy's matrix square root."""

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from pysdk.errors import DataError, NumericalError
from pysdk.evaluation.frechet import Moments, RunningMoments, frechet_distance

RNG = np.random.default_rng(0)


def covariance(size: int, rank: int | None = None) -> NDArray[np.float64]:
    root = RNG.normal(size=(size, rank or size))
    return root @ root.T


def test_of_one_dimension() -> None:
    """(m_1 - m_2)^2 + (s_1 - s_2)^2"""
    first, second = Moments(np.array([1.0]), np.array([[4.0]])), Moments(np.array([4.0]), np.array([[0.25]]))
    assert frechet_distance(first, second) == pytest.approx(9 + 1.5**2, rel=1e-12)


def test_of_commuting_covariances() -> None:
    """|m_1 - m_2|^2 + sum (s_1 - s_2)^2 along common axes."""
    axes = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    one, two = RNG.uniform(0, 3, 5), RNG.uniform(0, 3, 5)
    means = RNG.normal(size=(2, 5))
    first, second = Moments(means[0], (axes * one**2) @ axes.T), Moments(means[1], (axes * two**2) @ axes.T)
    expected = ((means[0] - means[1]) ** 2).sum() + ((one - two) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("size", [2, 10, 64])
def test_against_scipy(size: int) -> None:
    first, second = (Moments(RNG.normal(size=size), covariance(size)) for _ in range(2))
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance)
    expected = ((first.mean - second.mean) ** 2).sum() + np.trace(first.covariance + second.covariance - 2 * root.real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-8)


def test_of_singular_covariances() -> None:
    """Features that never fire: the product has no stable general square root, its trace is still exact."""
    first, second = Moments(np.zeros(6), covariance(6, 2)), Moments(np.zeros(6), np.zeros((6, 6)))
    assert frechet_distance(first, second) == pytest.approx(np.trace(first.covariance), rel=1e-10)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


def test_translation_and_rotation_change_nothing() -> None:
    first, second = (Moments(RNG.normal(size=4), covariance(4)) for _ in range(2))
    axes, shift = np.linalg.qr(RNG.normal(size=(4, 4)))[0], RNG.normal(size=4)
    moved = [Moments(axes @ m.mean + shift, axes @ m.covariance @ axes.T) for m in (first, second)]
    assert frechet_distance(*moved) == pytest.approx(frechet_distance(first, second), rel=1e-10)


def test_moments_are_those_of_numpy() -> None:
    features = RNG.normal(3, 2, (100, 7)).astype(np.float32)
    moments = Moments.of(features)
    np.testing.assert_allclose(moments.mean, features.astype(np.float64).mean(0))
    np.testing.assert_allclose(moments.covariance, np.cov(features.astype(np.float64), rowvar=False))
    assert moments.mean.dtype == moments.covariance.dtype == np.float64


def test_large_samples_come_near_the_truth() -> None:
    first, second = RNG.normal(0, 1, (20_000, 3)), RNG.normal(1, 2, (20_000, 3))
    assert frechet_distance(Moments.of(first), Moments.of(second)) == pytest.approx(3 * (1 + 1), rel=0.05)


def test_bad_features_are_refused() -> None:
    with pytest.raises(DataError, match="N >= 2"):
        Moments.of(np.zeros((1, 3)))
    with pytest.raises(DataError, match=r"expected \(N, D\)"):
        Moments.of(np.zeros(3))
    with pytest.raises(NumericalError, match="NaN"):
        Moments.of(np.full((3, 2), np.nan))
    with pytest.raises(DataError, match="2 and 3 dimensions"):
        frechet_distance(Moments.of(np.zeros((3, 2))), Moments.of(np.zeros((3, 3))))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_running_moments_are_those_of_the_whole(offset: float) -> None:
    features = RNG.normal(offset, 2, (1000, 5))
    running = RunningMoments()
    for part in np.split(features, [0, 1, 7, 400, 999]):
        running.add(part)
    found, whole = running.moments(), np.cov(features, rowvar=False)
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, whole, atol=1e-12 * offset + 1e-10)
    assert running.count == 1000


def test_running_moments_refuse_bad_features() -> None:
    running = RunningMoments()
    running.add(np.zeros((1, 3)))
    with pytest.raises(DataError, match="1 features"):
        running.moments()
    with pytest.raises(DataError, match=r"expected \(n, 3\)"):
        running.add(np.zeros((2, 4)))
    with pytest.raises(NumericalError, match="NaN"):
        running.add(np.full((2, 3), np.inf))
