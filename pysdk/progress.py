"""Progress of a chain: a bar, or a caller's function."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = bool | Callable[[int, int], object] | None


@contextmanager
def reporter(progress: Progress, total: int) -> Iterator[Callable[[int], object] | None]:
    """A callable that takes how many of `total` steps were done since its last call, or None."""
    if callable(progress):
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        yield report
    elif progress or (progress is None and (sys.stderr.isatty() or "ipykernel" in sys.modules)):
        from tqdm.auto import tqdm  # a quarter of the import time of the SDK

        with tqdm(total=total, unit="step", delay=0 if progress else 1, leave=bool(progress)) as bar:
            yield bar.update
    else:
        yield None
