"""Serialized TensorRT engines (trtexec's .plan or .engine): recognised and described, not built from.

A plan of pysdk keeps the network as ONNX, so that it runs on machines without this GPU and can be built again for
another; an engine has no such form of it. `pysdk build NETWORK.onnx --engine tensorrt` makes both.
"""

from __future__ import annotations

import struct
from pathlib import Path

from pysdk.export.network import Network
from pysdk.export.source_file import check_file, first_bytes

from pysdk import tensorrt_library
from pysdk.errors import CheckpointError, EngineError
from pysdk.tensorrt_library import TITLES

SUFFIXES = (".plan", ".engine", ".trt")
MAGIC = {b"vtrt": "tensorrt_rtx", b"ftrt": "tensorrt", b"ptrt": "tensorrt"}
"""First bytes, and the library that writes them: vtrt was read off engines of TensorRT-RTX 1.7; ftrt and ptrt are
what TensorRT 8 to 10 and 7 are said to write, and were never checked against a file."""

_ZIP = b"PK\x03\x04"
_HEADER = 32
"""Bytes of a vtrt file that are read: its size at 16 (8 bytes), the library's version at 24 (4 bytes)."""

INSTEAD = "build from the ONNX file it was made of instead: `pysdk build NETWORK.onnx --engine tensorrt`"


def matches(source: str) -> bool:
    """Whether the file is one by its first bytes, or named like one."""
    path = Path(source)
    return path.suffix in SUFFIXES or first_bytes(path, 4) in MAGIC


def load(source: str, options: dict[str, str]) -> Network:
    """Never a network: CheckpointError says what the file is, its inputs and outputs if they can be read, what to do.

    They can be read where the engine can be loaded: with the library and version that wrote it, on a GPU.
    """
    path = Path(source)
    check_file(path)
    head = first_bytes(path, _HEADER)
    if head.startswith(_ZIP):
        raise CheckpointError(f"{source!r} is a finished plan of pysdk; draw from it with `pysdk sample {source}`")
    if head[:4] not in MAGIC:
        raise CheckpointError(f"{source!r} is named like a TensorRT engine but does not begin like one")
    name = MAGIC[head[:4]]
    written_by = TITLES[name]
    if name == "tensorrt_rtx" and len(head) == _HEADER:
        (size,) = struct.unpack_from("<Q", head, 16)
        written_by += f" {'.'.join(map(str, head[24:28]))}"
        if path.stat().st_size < size:
            raise CheckpointError(
                f"{source!r} is a serialized engine of {written_by} that was cut off: it has {path.stat().st_size} of "
                f"{size} bytes"
            )
    raise CheckpointError(f"{source!r} is a serialized engine of {written_by}: {described(name, path)}; {INSTEAD}")


def described(name: str, path: Path) -> str:
    """The inputs and outputs of an engine, or why they cannot be read here."""
    if name not in tensorrt_library.installed():
        return f"{TITLES[name]} is needed to read it, which is not installed"
    try:
        library = tensorrt_library.find(name)
        engine = library.deserialize(path.read_bytes())
    except EngineError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return f"it has {', '.join(map(str, library.io_tensors(engine)))}, but no ONNX file, which every plan keeps"
