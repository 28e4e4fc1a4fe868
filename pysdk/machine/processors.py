"""How many threads to run."""

import os

MAX_THREADS = 256
"""More than this the native chain does not take."""


def default_threads() -> int:
    """The processors this process may use, at most MAX_THREADS."""
    # macOS has no affinity
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(found, MAX_THREADS)
