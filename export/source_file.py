"""Refuses source files before anything reads them."""

from __future__ import annotations

from pathlib import Path

from pysdk.errors import CheckpointError
from pysdk.files.regular_file import open_file

_POINTER = b"version https://git-lfs.github.com/spec/"


def first_bytes(path: Path, count: int) -> bytes:
    """Up to `count` bytes from the start of a file, none if it is not a readable file."""
    try:
        with open_file(path, CheckpointError) as file:
            return file.read(count)
    except (CheckpointError, OSError):
        return b""


def check_link(path: Path, folder: Path) -> None:
    """CheckpointError if a file of a folder is a link that leaves it; into the blobs of the Hub's cache it may.

    A plan would carry the contents of what such a link names: a licence that is a private key, others' weights.
    """
    real, home = path.resolve(), folder.resolve()
    snapshot = next((parent for parent in (home, *home.parents) if parent.parent.name == "snapshots"), None)
    allowed = [home] if snapshot is None else [home, snapshot.parent.parent / "blobs"]
    if path.exists() and not any(real.is_relative_to(root) for root in allowed):
        raise CheckpointError(f"{str(path)!r} is a link out of its folder; copy the file it names in its place")


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
