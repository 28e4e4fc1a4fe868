"""Reads state dicts from `torch.save` files without ever running what is pickled in them."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pysdk.errors import CheckpointError
from pysdk.export.importers.torch_pickle import check_pickle, check_tensors
from pysdk.export.source_file import check_file

_LUCIDRAINS = re.compile(r"(^|\.)(init_conv|downs\.\d+\.\d+\.block1|mid_attn\.to_qkv)\.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, floating-point ones as float32 on the CPU.

    Raises:
        CheckpointError: the file is missing, a Git LFS pointer or damaged; it pickles anything but tensors; or it is an
            optimizer's state or the checkpoint of another trainer.
    """
    check_file(path)
    check_pickle(path)
    data = _load(path)
    if not isinstance(data, dict):
        raise CheckpointError(f"{str(path)!r} holds one {type(data).__name__}, expected a state dict: tensors by name")
    _refuse_other_kinds(path, data)
    odd = [key for key, value in data.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if odd or not data:
        raise CheckpointError(
            f"{str(path)!r} is no state dict: {odd[0]!r} is no tensor"
            if odd
            else f"{str(path)!r} holds an empty state dict"
        )
    check_tensors(path, data)
    return {name: value.float() if value.is_floating_point() else value for name, value in data.items()}


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on its own older formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        text = " ".join(str(error).split())
        found = re.search(r"GLOBAL (\S+) was not an allowed", text)
        if found:
            raise CheckpointError(
                f"{str(path)!r} pickles Python code or objects ({found[1]}) beside its tensors; that is never loaded. "
                "Save `model.state_dict()` alone"
            ) from None
        if "TorchScript" in text:
            raise CheckpointError(
                f"{str(path)!r} is a TorchScript archive; save `model.state_dict()` instead"
            ) from None
        raise CheckpointError(f"{str(path)!r} is not a file of tensors written by torch.save: {text[:200]}") from None


def _refuse_other_kinds(path: Path, data: dict[Any, Any]) -> None:
    """CheckpointError for what else is found under the same file name."""
    if "param_groups" in data:
        raise CheckpointError(
            f"{str(path)!r} is an optimizer's state (opt*.pt); use the ema_*.pt or model*.pt that was written with it"
        )
    inner = data.get("model", data)
    names = [name for name in (inner if isinstance(inner, dict) else data) if isinstance(name, str)]
    if any(_LUCIDRAINS.search(name) for name in names):
        raise CheckpointError(
            f"{str(path)!r} is a checkpoint of denoising-diffusion-pytorch, whose network cannot be expressed with the "
            "layers of this U-Net (RMSNorm, linear attention, memory keys; docs/import/other.md); export it to ONNX "
            "and build that"
        )
    for key in ("state_dict", "model", "ema", "model_state_dict"):
        if isinstance(data.get(key), dict):
            raise CheckpointError(
                f"{str(path)!r} is a whole training state ({', '.join(map(str, data))}); save the tensors under "
                f"{key!r} alone with torch.save"
            )
