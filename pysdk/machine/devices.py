"""CUDA devices: their names, which there are, and their failures as our errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pysdk import _native
from pysdk.errors import DeviceError, OptionError, OptionTypeError


def device_number(device: object) -> int | None:
    """0 from "cuda", 1 from "cuda:1", None from "cpu".

    Raises:
        OptionTypeError, OptionError: it is no such name.
    """
    if not isinstance(device, str):
        raise OptionTypeError(f"device is {device!r}, expected 'cpu', 'cuda' or 'cuda:1'")
    if device == "cpu":
        return None
    found = re.fullmatch(r"cuda(?::(\d{1,3}))?", device)
    if found is None:
        raise OptionError(f"device is {device!r}, expected 'cpu', 'cuda' or, with a number, 'cuda:1'")
    return int(found[1] or 0)


def open_device(number: int) -> _native.Device:
    """A device by its number. DeviceError says why there is none: no CUDA in this build, no driver, fewer devices."""
    with device_errors():
        return _native.cuda_device(number)


@contextmanager
def device_errors() -> Iterator[None]:
    """Failures of a device as DeviceError."""
    try:
        yield
    except (_native.CudaError, _native.CudaMemoryError) as error:
        raise DeviceError(str(error)) from error


def describe_devices() -> str:
    """Each device with its memory, or why there is none; a line each."""
    _, count, text = _native.cuda_status()
    lines = [text]
    for number in range(count):
        try:
            device = open_device(number)
            free, total = device.memory
            lines.append(f"{device.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
        except (DeviceError, _native.CudaError) as error:
            lines.append(f"cuda:{number} cannot be used: {error}")
    return "\n".join(lines)
