"""Writes files in full or not at all: beside the target, then renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from pysdk.errors import OptionTypeError, OutputError, PysdkError
from pysdk.files.leftovers import Part, remove_leftovers

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "it grew larger than a file may be here",
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Binary file that replaces `path` when the block ends, and never existed if the block fails.

    A link is followed. A crash of the machine leaves the old file or the new one; a killed process may leave a hidden
    `.pysdk-*.part` beside it, which the next writer in that folder removes.

    Raises:
        OutputError: any OSError on the way, the block's own included.
    """
    target = _target(path)
    with _explaining(target):
        _refuse_what_is_there(target, path, folder=False)
    with _part(target, is_folder=False) as part:
        with os.fdopen(cast(int, part.descriptor), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.path.replace(target)  # still locked
        _sync_folder(target.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Empty folder to fill, which becomes `path` when the block ends, and never existed if the block fails.

    `path` may be an empty folder; anything else that exists is left alone.

    Raises:
        OutputError: any OSError on the way, the block's own included.
    """
    target = _target(path)
    with _explaining(target):
        _refuse_what_is_there(target, path, folder=True)
    with _part(target, is_folder=True) as part:
        yield part.path
        for folder, _, files in os.walk(part.path):
            for name in files:
                _sync_file(Path(folder, name))
            _sync_folder(Path(folder))
        part.path.rename(target)
        _sync_folder(target.parent)


def check_target(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Raise at once what `atomic_file` or `atomic_folder` would raise; call it before long work.

    Raises:
        OutputError: `path` is no name, its folder is not there or must not be written to, or something else is there.
    """
    target = _target(path)
    with _explaining(target):
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {os.fspath(path)!r}: {_no_folder(target)}")
        _refuse_what_is_there(target, path, folder=folder)
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write {os.fspath(path)!r}: the folder {str(target.parent)!r} is not writable")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there. OutputError if that cannot be."""
    with _explaining(path):
        path.mkdir(parents=True, exist_ok=True)


def _refuse_what_is_there(target: Path, path: str | os.PathLike[str], *, folder: bool) -> None:
    if not target.exists():
        return
    if folder and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(f"cannot write the folder {os.fspath(path)!r}: it exists already, choose a new name")
    if not folder and not target.is_file():
        kind = "a folder" if target.is_dir() else "a device"
        raise OutputError(f"cannot write {os.fspath(path)!r}: it is {kind}, expected a file")


def _no_folder(target: Path) -> str:
    return f"there is no folder {str(target.parent)!r}, create it first"


def _target(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise OptionTypeError(f"an output path is a str or a Path, got {type(path).__name__}")
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise OutputError(f"cannot write {os.fspath(path)!r}: that is not a file name")
    return Path(os.path.realpath(path))


@contextmanager
def _part(target: Path, *, is_folder: bool) -> Iterator[Part]:
    """The part that becomes `target`; removed on any failure, like those that killed processes left."""
    with _explaining(target):
        remove_leftovers(target.parent)
        part = Part(target.parent, is_folder=is_folder)
        try:
            yield part
        except BaseException:
            part.remove()
            raise
        finally:
            part.let_go()


@contextmanager
def _explaining(target: Path) -> Iterator[None]:
    """Turns an OSError into a sentence about `target`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PysdkError):
            raise
        raise OutputError(f"cannot write {str(target)!r}: {_reason(target, error)}") from error


def _reason(target: Path, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and not target.parent.is_dir():
        return _no_folder(target)
    return _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk; best effort, not every system can open or flush a folder."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
