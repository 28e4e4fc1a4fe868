"""Both samplers as a pair of batch sizes, and what a method asks of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pysdk import Sampler


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
