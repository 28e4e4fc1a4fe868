"""Imports TensorRT engines (trtexec's .plan or .engine) where their library can load them; options give the schedule.

A plan made of one has no network.onnx: it runs on such a GPU with such a library, and nowhere else.
"""

from __future__ import annotations

import struct
from pathlib import Path

from pysdk.engines.tensorrt import libraries
from pysdk.engines.tensorrt.libraries import TITLES
from pysdk.errors import CheckpointError, EngineError
from pysdk.export.importers.onnx.options import parse_options
from pysdk.export.importers.trtexec.engine import INSTEAD, EngineFile, network_of
from pysdk.export.network import Network
from pysdk.export.source_file import check_file, first_bytes
from pysdk.machine import cuda_driver

SUFFIXES = (".plan", ".engine", ".trt")
MAGIC = {b"vtrt": "tensorrt_rtx", b"ftrt": "tensorrt", b"ptrt": "tensorrt"}
"""First bytes, and the library that writes them: vtrt was read off engines of TensorRT-RTX 1.7; ftrt is what others
read off engines of TensorRT 8.6 to 10, ptrt what TensorRT 7 is said to write; neither was checked against a file."""

_HEADER = 32
"""Bytes that are read: the library's version at 24 (4 bytes), in vtrt files their size at 16 (8 bytes)."""


def matches(source: str) -> bool:
    """Whether the file is one by its first bytes, or named like one."""
    path = Path(source)
    return path.suffix in SUFFIXES or first_bytes(path, 4) in MAGIC


def load(source: str, options: dict[str, str]) -> Network:
    """The engine as it is, with what the options of an ONNX file say of it.

    Raises:
        CheckpointError: the file is no engine, none that a chain can use, or none that this machine can load: that
            takes the library and version that wrote it, and a GPU.
        OptionError: an option that is unknown, missing, or contradicts the engine.
    """
    path = Path(source)
    check_file(path)
    name, written_by = header(path)
    try:
        file, data = read(name, path)
    except EngineError as error:
        raise CheckpointError(f"{source!r} is a serialized engine of {written_by}: {error}; {INSTEAD}") from error
    return network_of(file, data, parse_options(options, path.stem, "a TensorRT engine"))


def header(path: Path) -> tuple[str, str]:
    """The library that wrote an engine, and the same for people, with its version where the file has it.

    Raises:
        CheckpointError: it is none, or cut off.
    """
    source, head = str(path), first_bytes(path, _HEADER)
    if head[:4] not in MAGIC:
        raise CheckpointError(f"{source!r} is named like a TensorRT engine but does not begin like one")
    name = MAGIC[head[:4]]
    written_by = TITLES[name]
    if head[:4] in (b"vtrt", b"ftrt") and any(head[24:28]):
        written_by += f" {'.'.join(map(str, head[24:28]))}"
    if name == "tensorrt_rtx" and len(head) == _HEADER:
        (size,) = struct.unpack_from("<Q", head, 16)
        if path.stat().st_size < size:
            raise CheckpointError(
                f"{source!r} is a serialized engine of {written_by} that was cut off: it has {path.stat().st_size} of "
                f"{size} bytes"
            )
    return name, written_by


def read(name: str, path: Path) -> tuple[EngineFile, bytes]:
    """What this machine's library says of an engine, and its bytes.

    Raises:
        EngineError: it cannot be loaded here; the message is a clause that says why.
    """
    if name not in libraries.installed():
        raise EngineError(f"{TITLES[name]} is needed to read it, which is not installed")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f"it cannot be read: {error.strerror}") from error
    library = libraries.find(name)
    engine = library.deserialize(data)
    io = tuple(library.io_tensors(engine))
    batches = {tensor.name: library.batches(engine, tensor.name) for tensor in io if tensor.is_input and tensor.shape}
    here = cuda_driver.device().compute_capability
    return EngineFile(name, library.version, here, io, batches), data
