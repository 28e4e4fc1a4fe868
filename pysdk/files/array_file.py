"""Arrays in .npz and .npy files: headers are read here, by one strict form, so that sizes are known first.

numpy would evaluate a header as Python, and reserve what it promises. Here dtypes are plain numbers or texts, and what
a header promises is compared with what the archive says, and with a limit, before it is read.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import PysdkError
from pysdk.files.regular_file import open_file, shown

_HEADER = re.compile(
    rb"\{\s*'descr'\s*:\s*'([<>|=]?[biufU]\d{1,4})'\s*,\s*'fortran_order'\s*:\s*(True|False)\s*,"
    rb"\s*'shape'\s*:\s*\(((?:\s*\d{1,18}L?\s*,)*\s*(?:\d{1,18}L?\s*)?)\)\s*,?\s*\}\s*"
)
_MAX_HEADER = 1 << 16
_MAX_DIRECTORY = 1 << 20
"""The most bytes in an archive's list of members."""
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,  # no dtype of that size
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


class Header(NamedTuple):
    """Type, order and shape of an array."""

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


class Npz:
    """An .npz file, open for reading. Use it as a context manager.

    Args:
        path: the file.
        error: what is raised when it is missing, damaged or not such a file, here and by every method.

    Attributes:
        names: its arrays, without ".npy".
    """

    def __init__(self, path: str | os.PathLike[str], error: type[PysdkError]) -> None:
        self._path, self._error = path, error
        self._file = open_file(path, error)
        try:
            with self.explaining():
                check_directory(self._file)
                self._archive = zipfile.ZipFile(self._file)
                self._members = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        except BaseException:
            self._file.close()
            raise
        self.names = sorted(self._members)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turns what goes wrong inside into one sentence about the file."""
        try:
            yield
        except _DAMAGE as reason:
            if isinstance(reason, PysdkError):
                raise
            text = " ".join(str(reason).split())[:300] or "it ends too early"
            raise self._error(f"{shown(self._path)} is not a readable .npz file: {text}") from reason

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[Header, IO[bytes]]]:
        """The header of an array and a file that stands at its first byte."""
        with self.explaining():
            info = self._members[name]
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name!r} is compressed in an unusual way; write it with numpy.savez")
            with self._archive.open(info) as file:
                header, size = _read_header(file)
                if size + header.nbytes != info.file_size:
                    raise ValueError(f"{name!r} promises {header.nbytes:,} bytes and has {info.file_size - size:,}")
                yield header, file

    def read(self, name: str, limit: int) -> NDArray[Any]:
        """An array of at most `limit` bytes."""
        with self.open(name) as (header, file):
            if header.nbytes > limit:
                raise self._error(
                    f"{name!r} in {shown(self._path)} has {header.nbytes:,} bytes, too many: {limit:,} fit."
                )
            return _filled(header, file)

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()
        self._file.close()


def read_npy(path: str | os.PathLike[str], limit: int, error: type[PysdkError]) -> NDArray[Any]:
    """The array in a .npy file, of at most `limit` bytes. `error` if it is missing, larger or damaged."""
    with open_file(path, error) as file:
        try:
            header, _ = _read_header(file)
            if header.nbytes > limit:
                raise ValueError(f"it holds {header.nbytes:,} bytes, expected at most {limit:,}")
            return _filled(header, file)
        except _DAMAGE as reason:
            raise error(f"{shown(path)} cannot be read as a .npy file: {' '.join(str(reason).split())[:200]}") from None


def _filled(header: Header, file: IO[bytes]) -> NDArray[Any]:
    array = np.empty(header.nbytes, np.uint8)
    view, done = memoryview(array.data), 0
    while done < len(array):
        part = file.read(min(len(array) - done, 1 << 20))
        if not part:
            raise ValueError("it ends before its values do")
        view[done : done + len(part)] = part
        done += len(part)
    return array.view(header.dtype).reshape(header.shape, order="F" if header.fortran else "C")


def _read_header(file: IO[bytes]) -> tuple[Header, int]:
    """The header of a .npy file, which then stands at its values, and where that is."""
    head = file.read(8)
    if head[:6] != b"\x93NUMPY" or head[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError("it does not begin as an array does")
    length = 2 if head[6] == 1 else 4
    size = int.from_bytes(file.read(length), "little")
    if size > _MAX_HEADER:
        raise ValueError(f"a header of {size:,} bytes is too long")
    text = file.read(size)
    found = _HEADER.fullmatch(text)
    if len(text) != size or found is None:
        raise ValueError(f"its header is {text[:100].decode('ascii', 'replace')!r}, expected an array of plain numbers")
    shape = tuple(int(part.strip(b" L")) for part in found[3].split(b",") if part.strip())
    dtype = np.dtype(found[1].decode())
    if len(shape) > 16 or math.prod(shape) * dtype.itemsize >= 1 << 62:
        raise ValueError(f"a shape of {str(shape)[:100]} is too large")
    return Header(dtype, found[2] == b"True" and len(shape) > 1, shape), 8 + length + size


def check_directory(file: BinaryIO) -> None:
    """ValueError if the list of an archive's members is too long to be read; its end must be the file's."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read(98)
    end = tail[-22:]
    if not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0":
        raise ValueError("it does not end as an archive does")
    (listed,) = struct.unpack_from("<I", end, 12)
    if tail[-42:-38] == b"PK\6\7":  # zip64, for files of more than 4 GiB
        if tail[:4] != b"PK\6\6":
            raise ValueError("its end is damaged")
        (listed,) = struct.unpack_from("<Q", tail, 40)
    if listed > _MAX_DIRECTORY:
        raise ValueError(f"its list of members has {listed:,} bytes, expected at most {_MAX_DIRECTORY:,}")
    file.seek(0)
