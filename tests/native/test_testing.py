"""The extension of the tests: it shares its types with the shipped one, which has none of what is in it."""

from __future__ import annotations

import numpy as np
import pytest

from pysdk import _native, _testing


def test_a_device_of_one_extension_runs_a_chain_of_the_other() -> None:
    device = _testing.SimulatedDevice()
    assert isinstance(device, _native.Device)
    chain = _native.CudaChain(device, batch=2, shape=(1, 3, 3))
    seeds, images = np.full(2, 7, np.uint64), np.arange(2, dtype=np.uint64)
    table = _native.StepTable(np.zeros((1, len(_native.STEP_COLUMNS)), np.float32))
    chain.begin(table, seeds=seeds, images=images)
    np.testing.assert_array_equal(chain.x.numpy(), _testing.normal(7, images, 0, (1, 3, 3)))


@pytest.mark.parametrize("how", ["error", "memory"])
def test_an_error_thrown_in_one_extension_is_the_other_s(how: str) -> None:
    device = _testing.SimulatedDevice()
    device.fail("allocate", how=how)
    with pytest.raises(_native.CudaMemoryError if how == "memory" else _native.CudaError, match="failure asked for"):
        _native.CudaChain(device, batch=2, shape=(1, 3, 3))


def test_the_shipped_extension_has_none_of_it() -> None:
    mine = {name for name in vars(_testing) if not name.startswith("__")}
    assert mine == {"SimulatedDevice", "exp", "normal", "philox"}
    assert mine.isdisjoint(vars(_native))
