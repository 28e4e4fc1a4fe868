"""Which torch device trains."""

from __future__ import annotations

import torch

from pysdk.errors import OptionError


def training_device(name: str | None) -> str:
    """`name`, or by default cuda where there is one, else cpu. OptionError if torch has no such device."""
    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.device(device)
    except RuntimeError as error:
        raise OptionError(f"device is {device!r}; expected cpu, cuda or another of torch's") from error
    return device
