"""Serialized TensorRT engines (trtexec's .plan or .engine): recognised, not built from yet."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pysdk.export.network import Network
from pysdk.export.source_file import check_file, first_bytes

from pysdk.errors import CheckpointError

SUFFIXES = (".plan", ".engine", ".trt")
_MAGIC = (b"ftrt", b"ptrt")
_ZIP = b"PK\x03\x04"
_RUNTIMES = ("tensorrt", "tensorrt_rtx")


def matches(source: str) -> bool:
    """Whether the file is one by its first bytes, or named like one."""
    path = Path(source)
    return path.suffix in SUFFIXES or first_bytes(path, 4) in _MAGIC


def load(source: str, options: dict[str, str]) -> Network:
    """Never a network: CheckpointError says what the file is and what is needed."""
    path = Path(source)
    check_file(path)
    head = first_bytes(path, 4)
    if head == _ZIP:
        raise CheckpointError(f"{source!r} is a finished plan of pysdk; draw from it with `pysdk sample {source}`")
    if head not in _MAGIC:
        raise CheckpointError(f"{source!r} is named like a TensorRT engine but does not begin like one")
    found = [name for name in _RUNTIMES if importlib.util.find_spec(name) is not None]
    needed = (
        "this version of pysdk cannot run it yet"
        if found
        else "a TensorRT runtime is needed to read it (`pip install tensorrt`, of the version and on a GPU of the kind "
        "it was built with), which is not installed"
    )
    raise CheckpointError(
        f"{source!r} is a serialized TensorRT engine: {needed}; build from the ONNX file it was made of instead"
    )
