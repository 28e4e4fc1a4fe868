"""Which package of an extra a test failed for want of; conftest.py skips it then."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec

from kit.places import ROOT
from pysdk.errors import MissingDependencyError


def optional() -> frozenset[str]:
    """The packages that extras of pyproject.toml name, as they are imported."""
    text = (ROOT / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    named = {name.replace("-", "_") for name in re.findall(r'"([\w-]+)[^"]*"', section)}
    return frozenset(named | {"ml_dtypes"})  # which onnx brings


OPTIONAL = optional()


def missing(error: BaseException | None) -> str | None:
    """The optional package that an error is about, if it is not installed."""
    names = {name for found in _chain(error) for name in _names(found)}
    return min((name for name in names & OPTIONAL if find_spec(name) is None), default=None)


def _names(error: BaseException) -> Iterator[str]:
    if isinstance(error, ModuleNotFoundError) and error.name:
        yield error.name.partition(".")[0]
    elif isinstance(error, MissingDependencyError):
        yield from (word for found in re.findall(r"^(\w+) is not installed|needs (\w+):", str(error)) for word in found)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "cause", None) or error.__cause__  # pytest's ConftestImportFailure has its own
