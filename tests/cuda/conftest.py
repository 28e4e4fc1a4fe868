import sys
from pathlib import Path

import pytest

from pysdk import _native

# the random chains that the CPU's tests are made of
sys.path.insert(0, str(Path(__file__).parents[1] / "native"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> _native.SimulatedDevice:
    """A simulated device that samplers find under every number."""
    made = _native.SimulatedDevice()
    monkeypatch.setattr("pysdk.cuda.executor.open_device", lambda number: made)
    return made
