"""From pytest-benchmark's results to Markdown: ours, each peer, and how many times our time it takes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

OURS = "pysdk"
UNITS = {"s": 1.0, "ms": 1e3, "ns/element": 1e9, "ns/element/row": 1e9, "MB": 1e-6}


@dataclass(frozen=True)
class Times:
    """Seconds of one contender, or bytes, round by round."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The middle round."""
        return median(self.seconds)

    @property
    def minimum(self) -> float:
        """The fastest round."""
        return min(self.seconds)

    def ratios(self, to: Times) -> list[float]:
        """This contender's time over another's, round by round: they ran side by side."""
        return [a / b for a, b in zip(self.seconds, to.seconds, strict=True)]


@dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes:
        group: what is compared.
        work: on what.
        ours, peers: the times.
        per: units of work in one timed call; the tables show time per unit.
        unit: a key of `UNITS`.
        share: the part of our time outside the network, where measured.
        errors: each contender's, relative to the largest output in float64, where measured.
        missing: peers that took no part, and why.
        ways: names of the times to divide by each other, (what, slower, faster), where that is the result.
    """

    group: str
    work: str
    ours: Times
    peers: dict[str, Times]
    per: float
    unit: str
    share: float | None
    errors: dict[str, float]
    missing: dict[str, str]
    ways: list[tuple[str, str, str]]

    @classmethod
    def from_json(cls, benchmark: dict[str, Any]) -> Result:
        """A result from one entry of pytest-benchmark's JSON."""
        extra = benchmark["extra_info"]
        return cls(
            group=benchmark["group"],
            work=extra["work"],
            ours=Times(extra.get("ours") or benchmark["stats"]["data"]),
            peers={name: Times(seconds) for name, seconds in extra["peers"].items()},
            per=extra.get("per", 1),
            unit=extra["unit"],
            share=extra.get("share"),
            errors=extra.get("errors", {}),
            missing=extra.get("missing", {}),
            ways=[(what, slower, faster) for what, slower, faster in extra.get("ways", ())],
        )

    def best_peer(self) -> str:
        """The fastest one, by its ratio to ours."""
        return min(self.peers, key=lambda peer: median(self.peers[peer].ratios(self.ours)))

    def show(self, seconds: float) -> str:
        """A time in the unit of this result."""
        value = seconds / self.per * UNITS[self.unit]
        return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}"


def render(benchmarks: list[dict[str, Any]]) -> str:
    """All comparisons, one table per group."""
    results = [Result.from_json(benchmark) for benchmark in benchmarks]
    groups = dict.fromkeys(result.group for result in results)
    return "\n".join(_group(name, [result for result in results if result.group == name]) for name in groups)


def _group(name: str, results: list[Result]) -> str:
    if any(result.share is not None for result in results):
        return f"### {name}\n\n{_overhead(results)}"
    if any(result.ways for result in results):
        return f"### {name}\n\n{_speed_ups(results)}"
    if any(result.errors for result in results):
        return f"### {name}\n\n{_by_contender(results)}"
    peers = list(dict.fromkeys(peer for result in results for peer in result.peers))
    lines = [_line("work", OURS, *peers), _line(*["---"] + ["---:"] * (len(peers) + 1))]
    for result in results:
        cells = [f"{result.show(result.ours.median)} (min {result.show(result.ours.minimum)})"]
        cells += [_cell(result, result.peers.get(peer)) for peer in peers]
        lines.append(_line(f"{result.work}, {result.unit}", *cells))
    return f"### {name}\n\n" + "".join(lines)


def _cell(result: Result, times: Times | None) -> str:
    if times is None:
        return ""
    ratio = median(times.ratios(result.ours))
    return f"{result.show(times.median)} (min {result.show(times.minimum)}), **{ratio:.2f}x**"


def _by_contender(results: list[Result]) -> str:
    """A line per contender, for many peers on few works; errors behind the times."""
    peers = list(dict.fromkeys(peer for result in results for peer in result.peers))
    lines = [_line("", *(f"{r.work}, {r.unit}" for r in results)), _line("---", *["---:"] * len(results))]
    cells = [f"{r.show(r.ours.median)} (min {r.show(r.ours.minimum)}), {_error(r, OURS)}".rstrip(", ") for r in results]
    lines.append(_line(OURS, *cells))
    for peer in peers:
        cells = [f"{_cell(r, r.peers.get(peer))}, {_error(r, peer)}".strip(", ") for r in results]
        lines.append(_line(peer, *cells))
    best = [r.best_peer() for r in results]
    cells = [f"{peer}, **{median(r.peers[peer].ratios(r.ours)):.2f}x**" for r, peer in zip(results, best, strict=True)]
    lines.append(_line("best peer", *cells))
    missing = [f"{peer}, {result.work}: {why}" for result in results for peer, why in result.missing.items()]
    note = f"\nNot compared: {'; '.join(missing)}.\n" if missing else ""
    return "".join(lines) + "\nLast in a cell: the largest error against float64, over the largest output.\n" + note


def _error(result: Result, name: str) -> str:
    return f"{result.errors[name]:.0e}" if name in result.errors else ""


def _speed_ups(results: list[Result]) -> str:
    lines = [_line("work", "one thread", "all of them", "speed-up (quartiles)"), _line("---", "---:", "---:", "---:")]
    for result in results:
        times = {OURS: result.ours, **result.peers}
        for what, slower, faster in result.ways:
            ratios = times[slower].ratios(times[faster])
            low, _, high = quantiles(ratios, n=4, method="inclusive")
            lines.append(
                _line(
                    f"{what}, {result.unit}",
                    *(
                        f"{result.show(t.median)} (min {result.show(t.minimum)})"
                        for t in (times[slower], times[faster])
                    ),
                    f"**{median(ratios):.2f}x** ({low:.2f} to {high:.2f})",
                )
            )
    return "".join(lines)


def _overhead(results: list[Result]) -> str:
    """Chains beside their own network calls; here ours is the numerator."""
    lines = [
        _line("work", "chain", "its network calls alone", "ratio (quartiles)", "outside the network"),
        _line("---", "---:", "---:", "---:", "---:"),
    ]
    for result in results:
        (alone,) = result.peers.values()
        ratios = result.ours.ratios(alone)
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        lines.append(
            _line(
                f"{result.work}, {result.unit}",
                f"{result.show(result.ours.median)} (min {result.show(result.ours.minimum)})",
                f"{result.show(alone.median)} (min {result.show(alone.minimum)})",
                f"**{median(ratios):.3f}** ({low:.3f} to {high:.3f})",
                f"{100 * (result.share or 0):.3f} %",
            )
        )
    return "".join(lines)


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |\n"
