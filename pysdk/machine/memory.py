"""The memory that may be taken: what the operating system gives this process, and a budget that is kept."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pysdk.checks import whole_number
from pysdk.errors import MemoryLimitError

SHARE = 0.8
"""The default share of what the system gives that a sampler may take."""


def given(root: Path = Path("/")) -> int:
    """Bytes that this process can have: the least of the machine's memory, its control groups' and its own limits."""
    return min(_limits(root), default=sys.maxsize)


def default_limit() -> int:
    """`SHARE` of what is given."""
    return int(given() * SHARE)


def _limits(root: Path) -> Iterator[int]:
    with suppress(AttributeError, ValueError, OSError):  # not every system knows these names
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft, _ = resource.getrlimit(kind)
            if soft != resource.RLIM_INFINITY:
                yield soft
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        inside = Path(path.lstrip("/"))  # a container may see its own group as the root of the mount
        for group in (inside, *inside.parents):
            with suppress(OSError, ValueError):  # "max" is no number
                yield int((mount / group / file).read_text())


class Budget:
    """Bytes that may be taken, and those that are; safe to use from several threads.

    Args:
        limit: bytes; by default `default_limit()`.

    Raises:
        OptionError, OptionTypeError: the limit is no number of bytes.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = default_limit() if limit is None else whole_number("max_memory", limit, 1, 2**63 - 1)
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Bytes that nothing has taken."""
        return self.limit - self._taken

    def check(self, size: int, what: str) -> None:
        """MemoryLimitError unless `size` bytes are left; `what` begins its sentence."""
        if size > self.left:
            raise MemoryLimitError(
                f"{what} {size:,} bytes of memory, and {self.left:,} are left of the limit of {self.limit:,}; "
                "give a smaller batch_size, or a larger max_memory"
            )

    def take(self, size: int, what: str) -> Callable[[], None]:
        """Take bytes, or raise as `check`. The result, called once, gives them back."""
        with self._lock:
            self.check(size, what)
            self._taken += size

        def give_back() -> None:
            # without the lock, which the thread may hold: a chain can be collected at any time
            self._taken -= size

        return give_back
