"""Kernels that TensorRT-RTX compiled for a GPU, kept for the next process: files in the folder that PYSDK_CACHE names.

Without that variable nothing is kept. The files are code for the GPU, as engines are: a folder that strangers can write
to is not for them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from pysdk.files.atomic import atomic_file

VARIABLE = "PYSDK_CACHE"


class KernelCache:
    """The kernels of one engine on one kind of GPU, in one file, for all its contexts. Not for several threads.

    Args:
        path: the file; it need not exist, nor its folder.

    Attributes:
        status: what became of it, a clause for people.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status = ""
        self._cache: Any = None
        self._written: bytes | None = None

    def attach(self, config: Any) -> None:
        """Let contexts of this trt.IRuntimeConfig take their kernels from it, and add those they compile."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._read()
        if self._cache is None or not config.set_runtime_cache(self._cache):
            self.status = "compiled kernels are not kept: the library makes no cache"

    def _read(self) -> None:
        """What the file has; the library refuses what another version wrote, or was compiled for another GPU."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self.status = f"compiled kernels cannot be read from {str(self.path)!r} ({error.strerror})"
            return
        if self._cache is not None and self._cache.deserialize(data):
            self._written = data
            self.status = f"compiled kernels from {str(self.path)!r}"

    def save(self) -> None:
        """Write the file if there are new kernels. What goes wrong is in `status`: images do not depend on it."""
        found = None if self._cache is None else self._cache.serialize()
        data = None if found is None else bytes(found)
        if data is None or data == self._written:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic_file(self.path) as file:
                file.write(data)
        except OSError as error:  # OutputError is one
            self.status = f"compiled kernels are not kept in {str(self.path.parent)!r}: {error.strerror or error}"
        else:
            self._written = data
            self.status = f"compiled kernels kept in {str(self.path)!r}"


def kernel_cache(engine: memoryview | bytes, *environment: str) -> KernelCache | None:
    """That of an engine in an environment, e.g. library version and GPU; None if PYSDK_CACHE is not set."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    digest = hashlib.sha256("\n".join(environment).encode() + b"\0")
    digest.update(engine)
    return KernelCache(Path(folder).expanduser() / f"{digest.hexdigest()[:32]}.kernels")
