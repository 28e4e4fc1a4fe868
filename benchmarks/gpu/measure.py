"""Timing of contenders in turns, within a limit: what fails or finds no time left is named and left out."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from benchmarks.gpu.contenders import Contender, Setting, Work

MOST_ROUNDS = 30
FEWEST_ROUNDS = 3
LONG = 5.0
"""Seconds of a batch from which one round after the warm-up has to do."""


@dataclass(frozen=True)
class Task:
    """What every contender does."""

    subject: str
    batch: int
    steps: int

    def __str__(self) -> str:
        return f"{self.subject}, batch {self.batch}, {self.steps} steps"


@dataclass(frozen=True)
class Measured:
    """One contender on one task.

    Attributes:
        base: the contender that is its network alone, or None.
        seconds: what each round took, a whole batch of images.
        first: seconds until the first batch was there, compiling and capturing included.
        flops: those of one image's network call.
        ceiling: operations per second of a large bf16 matrix product, measured in the same run.
    """

    task: Task
    contender: str
    base: str | None
    seconds: list[float]
    first: float
    flops: float
    ceiling: float

    @property
    def median(self) -> float:
        """The middle round."""
        return median(self.seconds)

    @property
    def images_per_second(self) -> float:
        """In the middle round."""
        return self.task.batch / self.median

    @property
    def share_of_ceiling(self) -> float:
        """Operations of the network's calls over what the device could have done in the middle round."""
        return self.flops * self.task.batch * self.task.steps / (self.median * self.ceiling)


class Limit:
    """Seconds that the whole run may take; nothing new is begun after them."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether they have passed."""
        return time.monotonic() >= self._end


def timed(work: Work) -> float:
    """Wall time of a call, the device idle before and after it."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(
    setting: Setting, task: Task, contenders: list[Contender], seconds: float, limit: Limit, ceiling: float
) -> tuple[list[Measured], dict[str, str]]:
    """Contenders on one task, in turns for about `seconds`, and why the others were left out."""
    left_out: dict[str, str] = {}
    works: dict[str, Work] = {}
    first: dict[str, float] = {}
    rounds: dict[str, int] = {}

    def attempt(name: str, action: Callable[[], float]) -> float | None:
        try:
            with torch.no_grad():
                return action()
        except Exception as error:  # whatever one raises, the others go on
            works.pop(name, None)
            left_out[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
            return None

    share = seconds / len(contenders)
    for contender in contenders:
        name = contender.name
        if limit.over:
            left_out[name] = "no time was left"
            continue

        def begin(contender: Contender = contender) -> float:
            network = setting.network(contender.mode)
            start = time.perf_counter()
            works[contender.name] = contender.make(setting, network, task.steps)
            once = timed(works[contender.name])
            compiling = 0.0 if contender.mode is None else setting.seconds[contender.mode]
            first[contender.name] = compiling + time.perf_counter() - start
            return once if once > LONG else timed(works[contender.name])

        length = attempt(name, begin)
        if length is not None:
            fewest = 1 if length > LONG else FEWEST_ROUNDS
            rounds[name] = max(fewest, min(MOST_ROUNDS, int(share / length)))

    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(max(rounds.values(), default=0)):
        names = [name for name in works if rounds[name] > turn]
        for name in names[turn % len(names) :] + names[: turn % len(names)] if names else ():
            if turn > 0 and limit.over:
                continue
            spent = attempt(name, lambda name=name: timed(works[name]))  # type: ignore[misc]
            if spent is not None:
                times[name].append(spent)
    found = [
        Measured(
            task=task,
            contender=contender.name,
            base=contender.base,
            seconds=times[contender.name],
            first=first[contender.name],
            flops=setting.subject.flops,
            ceiling=ceiling,
        )
        for contender in contenders
        if times.get(contender.name)
    ]
    works.clear()
    gc.collect()
    torch.cuda.empty_cache()
    return found, left_out
