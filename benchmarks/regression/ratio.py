"""The median of some ratios and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import median, quantiles

FEWEST = 6
"""Pairs without which no interval is sure to 95 %."""


@dataclass(frozen=True)
class Ratio:
    """The ratio of B to A.

    Attributes:
        median: the ratios'.
        quartiles: first and third.
        interval: two of the ratios, between which the true median lies with 95 % or more, whatever their distribution.
    """

    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float]

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """From FEWEST ratios or more."""
        ordered, rank = sorted(ratios), outer_rank(len(ratios))
        first, _, third = quantiles(ordered, n=4, method="inclusive")
        return cls(median(ordered), (first, third), (ordered[rank - 1], ordered[-rank]))

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def outer_rank(count: int) -> int:
    """The largest k so that the median is between the k-th smallest and the k-th largest of so many with 95 %."""
    if count < FEWEST:
        raise ValueError(f"{count} ratios have no interval that is sure to 95 %; take {FEWEST} pairs or more")
    rank, outside = 0, 0
    while 2 * (outside + comb(count, rank)) <= 0.05 * 2**count:
        outside += comb(count, rank)
        rank += 1
    return rank
