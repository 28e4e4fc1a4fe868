"""One thread for torch: the networks here are tiny, and equal bits need an equal number of threads."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _single_thread() -> Iterator[None]:
    torch: Any = sys.modules.get("torch")
    if torch is None:  # what has not imported it has no need of it
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
