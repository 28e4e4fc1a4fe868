"""Timing of our work and its peers' in turns, so that whatever slows the machine down slows all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

Work = Callable[[], object]

PAUSE = 0.01
"""Seconds before each timed call: longer than the idle threads of the library before it go on spinning."""


def interleave(
    benchmark: BenchmarkFixture,
    ours: Work,
    peers: Mapping[str, Work],
    *,
    seconds: float,
    rounds: tuple[int, int] = (3, 100),
    warm_up: bool = True,
    steps: Mapping[str, int] | None = None,
    pause: float = PAUSE,
    **extra: Any,
) -> None:
    """Run rounds of (each peer once, then ours) and hand all times to pytest-benchmark.

    pytest-benchmark times `ours`; the peers run in its untimed setup, one beside each round of ours. Their times go to
    `extra_info["peers"]`, so its JSON is the one source of results.

    Args:
        benchmark: the fixture of the test.
        ours: a call without arguments.
        peers: the same work done by others, by name.
        seconds: about how long to measure; sets the number of rounds.
        rounds: fewest and most rounds.
        warm_up: run one round before, untimed, whose length gives the number of rounds. Without it the caller has
            warmed up, and the fewest rounds are run.
        steps: how many times a peer does the work in one call, if not once; its time is divided by that.
        pause: seconds before each timed call.
        extra: what else belongs to the result, such as `per` and `unit` (see `benchmarks.table`).
    """
    times: dict[str, list[float]] = {name: [] for name in peers}
    names = list(peers)
    with _no_garbage_collection():
        count = rounds[0]
        if warm_up:
            start = time.perf_counter()
            for work in (*peers.values(), ours):
                work()
            length = time.perf_counter() - start + pause * (len(peers) + 1)
            count = max(rounds[0], min(rounds[1], int(seconds / length)))

        def run_peers() -> None:
            turn = len(times[names[0]]) % len(names) if names else 0
            for name in names[turn:] + names[:turn]:
                times[name].append(seconds_of(peers[name], pause) / (steps or {}).get(name, 1))
            time.sleep(pause)

        benchmark.pedantic(ours, setup=run_peers, rounds=count)
    benchmark.extra_info.update(extra, peers=times)


def seconds_of(work: Work, pause: float) -> float:
    """Wall time of one call."""
    time.sleep(pause)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
