"""The NVIDIA driver, asked through its own library: is there a device, and which.

Nothing is linked against it, so this works, and says why there is no device, on machines without a driver.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass
from typing import Any

from pysdk.errors import EngineError

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class CudaDevice:
    """A GPU.

    Attributes:
        name: as the driver gives it, e.g. "NVIDIA H200".
        compute_capability: "9.0".
    """

    name: str
    compute_capability: str


def device(index: int = 0) -> CudaDevice:
    """The GPU of this index.

    Raises:
        EngineError: no driver, no device, or not so many; the message is a clause that says which.
    """
    driver = _driver()
    _check(driver, driver.cuInit(0), "cannot start")
    count, handle, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _check(driver, driver.cuDeviceGetCount(ctypes.byref(count)), "cannot count its devices")
    if index >= count.value:
        raise EngineError(f"there is no CUDA device {index}, the driver sees {count.value}")
    _check(driver, driver.cuDeviceGet(ctypes.byref(handle), index), f"cannot open device {index}")
    name = ctypes.create_string_buffer(256)
    _check(driver, driver.cuDeviceGetName(name, len(name), handle), f"cannot name device {index}")
    capability = []
    for attribute in (_MAJOR, _MINOR):
        status = driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        _check(driver, status, f"cannot tell the compute capability of device {index}")
        capability.append(str(value.value))
    return CudaDevice(name.value.decode(errors="replace"), ".".join(capability))


def _driver() -> Any:
    """libcuda, whose functions are looked up by name."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise EngineError("there is no NVIDIA driver on this machine (libcuda.so.1 was not found)") from None


def _check(driver: Any, status: int, what: str) -> None:
    if status != 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        reason = (text.value or b"unknown error").decode(errors="replace")
        raise EngineError(f"the NVIDIA driver {what}: {reason} ({status})")
