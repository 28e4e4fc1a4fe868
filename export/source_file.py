"""What is refused of a source file before anything reads it."""

from __future__ import annotations

from pathlib import Path

from pysdk.errors import CheckpointError

_POINTER = b"version https://git-lfs.github.com/spec/"


def first_bytes(path: Path, count: int) -> bytes:
    """Up to `count` bytes from the start of a file, none if it is not a readable file."""
    if not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


def check_file(path: Path) -> None:
    """CheckpointError unless `path` is a file with contents of its own."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {str(path)!r}")
    head = first_bytes(path, len(_POINTER))
    if not head:
        raise CheckpointError(f"{str(path)!r} is empty or cannot be read")
    if head == _POINTER:
        raise CheckpointError(
            f"{str(path)!r} is a Git LFS pointer, not the weights; fetch them with `git lfs pull` in its repository"
        )
