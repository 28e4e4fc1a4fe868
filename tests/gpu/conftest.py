"""Tests that need an NVIDIA GPU: `make gpu-test`. Elsewhere each is skipped with the reason.

Networks here are torch functions, so a torch for CUDA is needed too.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from pysdk import _native

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _, count, text = _native.cuda_status()
    for item in items:
        if Path(item.path).is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.filterwarnings("default"))  # torch here is whatever the machine has
            if count == 0:
                item.add_marker(pytest.mark.skip(reason=text))


@pytest.fixture(scope="session")
def device() -> _native.Device:
    return _native.cuda_device(0)


@pytest.fixture
def torch() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no CUDA device")
    with warnings.catch_warnings():  # some versions announce another name for these, which older ones lack
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    return torch
