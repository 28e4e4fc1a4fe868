"""Images to be redrawn, and both samplers as a pair of batch sizes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pysdk import Sampler


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Five 8x8 pictures, uint8 (5, 8, 8, 1)."""
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(scope="session")
def narrow(conditional_plan: Path) -> Iterator[Sampler]:
    """The conditional plan two images at a time, so that five images are three batches."""
    with Sampler(conditional_plan, threads=1, batch_size=2) as sampler:
        yield sampler


@pytest.fixture(scope="session")
def requests_of(conditional: Sampler) -> Any:
    """The requests that a method of a sampler makes: `requests_of("inpaint", images, mask, ...)`."""

    def record(method: str, *arguments: Any, **options: Any) -> list[Any]:
        made: list[Any] = []
        executor, run = conditional._executor, conditional._executor.run

        def note(request: Any, *others: Any) -> Any:
            made.append(request)
            return run(request, *others)

        executor.run = note  # type: ignore[method-assign]
        try:
            getattr(conditional, method)(*arguments, **options)
        finally:
            del executor.run  # type: ignore[method-assign]
        return made

    return record
