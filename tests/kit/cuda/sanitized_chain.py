"""Chains with all their kernels and branches, for compute-sanitizer: sanitized_chain.py while,step,plain

Without torch, which would take the tool minutes: the networks are the driver's memsets.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

import numpy as np

from pysdk import _native
from pysdk.diffusion.table import STEP_COLUMNS

ROWS = 40
SHAPES = [(3, 16, 16), (1, 5, 7)]


def filling(driver: ctypes.CDLL, output: _native.DeviceArray, value: float) -> Callable[[int], None]:
    """A network whose output is one value everywhere."""
    bits = int(np.float32(value).view(np.uint32))
    count = int(np.prod(output.shape))

    def enqueue(stream: int) -> None:
        status = driver.cuMemsetD32Async(
            ctypes.c_uint64(output.pointer), ctypes.c_uint(bits), ctypes.c_size_t(count), ctypes.c_void_p(stream)
        )
        if status != 0:
            raise RuntimeError(f"cuMemsetD32Async failed: {status}")

    return enqueue


def run(device: _native.Device, driver: ctypes.CDLL, shape: tuple[int, int, int], path: str) -> np.ndarray:
    """Guided rows, rows for the conditional half alone and skipped ones, thresholds, snapshots, bytes."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(ROWS, len(STEP_COLUMNS))).astype(np.float32) * 0.1
    for name in ("save", "skip", "unguided", "grad", "known", "known_noise"):
        rows[:, STEP_COLUMNS.index(name)] = 0
    rows[::3, STEP_COLUMNS.index("unguided")] = 1
    rows[::4, STEP_COLUMNS.index("save")] = 1
    rows[5::7, STEP_COLUMNS.index("skip")] = 1
    for name in ("p", "q", "b", "h"):  # no estimate is made where the network is skipped
        rows[5::7, STEP_COLUMNS.index(name)] = 0
    chain = _native.CudaChain(device, batch=3, shape=shape, guided=True, path=path)
    output = chain.network_output
    chain.attach(filling(driver, output, 0.25), conditional=filling(driver, output.head(3), 0.5))
    chain.keep_snapshots(7, 2)
    chain.begin(
        _native.StepTable(rows, clip="dynamic"),
        seeds=np.arange(3, dtype=np.uint64),
        images=np.arange(3, dtype=np.uint64),
        labels=np.zeros(3, np.int64),
        guidance=np.full(3, 2, np.float32),
    )
    assert chain.advance(99) == ROWS
    assert chain.path == path
    chain.snapshot(35)
    assert chain.bytes(device.empty((3, *shape[1:], shape[0]), "uint8"), images=3) is None
    return chain.x.numpy()


def main(paths: list[str]) -> None:
    device, driver = _native.cuda_device(0), ctypes.CDLL("libcuda.so.1")
    for shape in SHAPES:
        results = [run(device, driver, shape, path) for path in paths]
        for result in results:
            np.testing.assert_array_equal(result, results[0])
    print(f"{ROWS} rows ran on {' and '.join(paths)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1].split(","))
