"""Precision and recall against their definition with all distances at once, and on sets whose answer is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from pysdk.errors import DataError, OptionError
from pysdk.evaluation import manifold
from pysdk.evaluation.manifold import precision_recall

RNG = np.random.default_rng(0)


def definition(real: NDArray[np.floating], fake: NDArray[np.floating], k: int) -> tuple[float, float]:
    def share(features: NDArray[np.floating], centres: NDArray[np.floating]) -> float:
        radii = np.sort(cdist(centres, centres), axis=1)[:, k]
        return float((cdist(features, centres) <= radii).any(axis=1).mean())

    return share(fake, real), share(real, fake)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_against_the_definition(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = RNG.normal(size=(120, 6)).astype(np.float32), RNG.normal(0.4, 0.8, (90, 6)).astype(np.float32)
    expected = definition(real, fake, k)
    assert 0.1 < min(expected) < max(expected) < 1
    assert precision_recall(real, fake, neighbours=k) == expected
    monkeypatch.setattr(manifold, "_BLOCK", 7)
    assert precision_recall(real, fake, neighbours=k) == expected


def test_far_from_the_origin_nothing_cancels() -> None:
    real, fake = RNG.normal(1e6, 1, (50, 3)), RNG.normal(1e6, 1, (50, 3))
    assert precision_recall(real, fake) == definition(real, fake, 3)


def test_known_sets() -> None:
    line = np.arange(10.0)[:, None]
    assert precision_recall(line, line) == (1, 1)
    assert precision_recall(line, line + 1000) == (0, 0)
    half = np.tile(line[:5], (2, 1))  # only half of the modes: all of it is real, not all real ones are in it
    precision, recall = precision_recall(line, half, neighbours=2)
    assert precision == 1
    assert 0.5 <= recall < 1


def test_exact_ties_are_inside() -> None:
    """Each ball ends on its neighbour: here every generated feature lies on the edge of one."""
    real, fake = np.array([[0, 2], [1, 1], [1, 2]], float), np.array([[0, 1], [0, 1], [2, 1]], float)
    assert precision_recall(real, fake, neighbours=1) == definition(real, fake, 1)
    assert precision_recall(real, fake, neighbours=1)[0] == 1
    grid = RNG.integers(0, 3, (40, 2, 12, 3)).astype(float)
    for a, b in grid:
        assert precision_recall(a, b, neighbours=2) == definition(a, b, 2)


def test_bad_arguments_are_refused() -> None:
    x = np.zeros((5, 2))
    for k in (0, 5):
        with pytest.raises(OptionError, match=f"neighbours is {k}"):
            precision_recall(x, x, neighbours=k)
    with pytest.raises(DataError, match=r"\(5, 2\) and \(5, 3\)"):
        precision_recall(x, np.zeros((5, 3)))
