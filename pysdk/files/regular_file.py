"""The one way to open a file that a user or a folder names: only a regular file, read up to a limit.

A pipe would wait for a writer forever, a device has no end, and a stranger's folder can hold either.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from pysdk.errors import PysdkError

MAX_JSON = 4 << 20
"""Bytes of a configuration."""
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_SHOWN = 160
_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def shown(path: str | os.PathLike[str]) -> str:
    """A path for messages: one line, quoted, without the middle of a very long one."""
    text = repr(os.fspath(path))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"


def open_file(path: str | os.PathLike[str], error: type[PysdkError]) -> BinaryIO:
    """A regular file, open for reading; links are followed, and nothing waits.

    Raises:
        error: there is none, it is something else, or it cannot be read.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise error(f"There is no file {shown(path)}.") from None
    except (OSError, ValueError) as reason:  # ValueError: a zero byte in the name
        kind = _kind(path)
        why = f"it is a {kind}, expected a file" if kind else getattr(reason, "strerror", None) or str(reason)
        raise error(f"{shown(path)} cannot be read: {why}.") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "device")
        raise error(f"{shown(path)} is a {kind}, expected a file; copy what it gives to a file first.")
    return os.fdopen(descriptor, "rb")


def read_file(path: str | os.PathLike[str], limit: int, error: type[PysdkError]) -> bytes:
    """All of a regular file of at most `limit` bytes. `error` as `open_file`, or if there is more."""
    with open_file(path, error) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = b"" if size > limit else file.read(size + 1)  # Python reserves what is asked for
            if len(data) > size:  # it grew, or is one that does not say
                data += file.read(limit + 1 - len(data))
        except OSError as reason:
            raise error(f"{shown(path)} cannot be read: {reason.strerror or reason}.") from None
    if max(size, len(data)) > limit:
        raise error(f"{shown(path)} has {max(size, len(data)):,} bytes, expected at most {limit:,}.")
    return data


def file_sha256(path: str | os.PathLike[str], error: type[PysdkError]) -> str:
    """SHA-256 of a regular file of any size in hex, read in parts. `error` as `open_file`."""
    with open_file(path, error) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except OSError as reason:
            raise error(f"{shown(path)} cannot be read: {reason.strerror or reason}.") from None


def read_object(path: str | os.PathLike[str], error: type[PysdkError], limit: int = MAX_JSON) -> dict[str, Any]:
    """The object in a JSON file. `error` as `read_file`, or if it holds anything else."""
    data = read_file(path, limit, error)
    try:
        found = json.loads(data)
    except RecursionError:
        raise error(f"{shown(path)} is not readable JSON: it is nested too deeply.") from None
    except ValueError as reason:
        raise error(f"{shown(path)} is not readable JSON: {str(reason)[:200]}.") from None
    if not isinstance(found, dict):
        raise error(f"{shown(path)} holds a {type(found).__name__}, expected a JSON object.")
    return found


def _kind(path: str | os.PathLike[str]) -> str | None:
    """What a path names, if that is no file: a socket cannot even be opened."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None
    return next((name for is_kind, name in _KINDS if is_kind(mode)), None)
