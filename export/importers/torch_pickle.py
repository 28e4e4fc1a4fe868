"""Reads what unpickling a torch.save file would do, before torch sees it.

torch's restricted unpickler runs no code, but calls constructors with any arguments: 60 bytes make it fill all memory
(`bytearray(2**40)`), and members of the archive may be compressed. Here a file may name only what state dicts need.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from pysdk.errors import CheckpointError
from pysdk.files.array_file import check_directory
from pysdk.files.regular_file import open_file
from pysdk.machine.memory import given

_ALLOWED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16")),
    *(f"torch {kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")),
}
_MAX_PICKLE = 1 << 24
"""Bytes; that of 10,000 tensors has a tenth."""
_LEGACY_PICKLES = 5
"""At the start of a file that is no zip archive: magic, protocol, system, the dict, the names of its storages."""


def check_pickle(path: Path) -> None:
    """CheckpointError if a file pickles anything but tensors, or costs more than it has bytes."""
    with open_file(path, CheckpointError) as file:
        try:
            is_zip = file.read(4) == b"PK\3\4"
            file.seek(0)
            found = _in_archive(file) if is_zip else _globals(io.BytesIO(file.read(_MAX_PICKLE)), _LEGACY_PICKLES)
        except CheckpointError as error:
            raise CheckpointError(f"{str(path)!r} {error}") from None
        except Exception as error:  # pickletools and zipfile share no class, and damage can raise anything
            text = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{str(path)!r} is not a file of tensors written by torch.save: {text}") from None
    for name in found:
        if name not in _ALLOWED:
            shown = name.replace(" ", ".")[:100]
            raise CheckpointError(
                f"{str(path)!r} pickles Python code or objects ({shown}) beside its tensors; that is never loaded. "
                "Save `model.state_dict()` alone"
            )


def check_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """CheckpointError for tensors that are not plain, or have more values than the file has bytes for."""
    for name, tensor in tensors.items():
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(f"{str(path)!r}: {name[:80]!r} is no plain tensor of real numbers")
    total, size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), path.stat().st_size
    if total > 2 * size:
        raise CheckpointError(
            f"{str(path)!r} has tensors of {total:,} bytes in a file of {size:,}; save them unexpanded"
        )


def _in_archive(file: BinaryIO) -> list[str]:
    check_directory(file)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise CheckpointError("has compressed members, which torch.save does not write")
        total = sum(member.file_size for member in members)
        if total > given() // 2:
            raise CheckpointError(f"has {total:,} bytes of tensors, more than half of this machine's memory")
        pickles = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
        if any(member.filename.rpartition("/")[2] == "constants.pkl" for member in members):
            raise CheckpointError("is a TorchScript archive; save `model.state_dict()` instead")
        if len(pickles) != 1 or pickles[0].file_size > _MAX_PICKLE:
            raise CheckpointError("is not a file of tensors written by torch.save: it has no data.pkl of a usual size")
        return _globals(io.BytesIO(archive.read(pickles[0])), 1)


def _globals(data: BinaryIO, count: int) -> list[str]:
    """What the next `count` pickles name; nothing is made."""
    found = []
    for _ in range(count):
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                found.append(str(argument))
            elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "OBJ"):
                found.append(opcode.name)
    return found
