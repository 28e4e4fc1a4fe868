"""A folder of pictures, one sub-folder a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pysdk.datasets.dataset import Dataset
from pysdk.errors import DataError
from pysdk.files.pictures import NOT_READ, SUFFIXES, picture_shape, read_picture
from pysdk.files.regular_file import shown
from pysdk.machine.memory import given

MAX_PICTURES = 4_000_000
"""In a folder."""
MAX_OTHERS = 1_000_000
"""Files and folders among them."""


def image_folder(folder: Path) -> Dataset:
    """All pictures below a folder, of one size; its sub-folders, if it has any, are the classes in sorted order."""
    files, classes = picture_files(folder)
    height, width, channels = picture_shape(files[0][0], DataError)
    needed = len(files) * height * width * channels
    if needed > given() // 2:
        raise DataError(
            f"{shown(folder)} has {len(files)} pictures of {height}x{width}, {needed:,} bytes: more than half of this "
            "machine's memory; resize them first."
        )
    images = np.empty((len(files), channels, height, width), np.uint8)
    for index, (path, _) in enumerate(files):
        pixels = read_alike(path, (height, width, channels), order="(C, H, W)")
        images[index] = pixels.transpose(2, 0, 1)
    labels = np.array([label for _, label in files], np.int64) if classes else None
    return Dataset(images, labels, classes)


def read_alike(path: Path, shape: tuple[int, ...], *, order: str = "(H, W, C)") -> NDArray[np.uint8]:
    """A picture as uint8 (H, W, C); DataError, before it is decoded, if that is not `shape`."""
    found = picture_shape(path, DataError)
    if found != shape:
        axes = (2, 0, 1) if order == "(C, H, W)" else (0, 1, 2)
        this, others = (tuple(sizes[axis] for axis in axes) for sizes in (found, shape))
        raise DataError(
            f"{path} has shape {this} {order} but the pictures before it {others}: resize or convert them to one size "
            "and mode first."
        )
    return read_picture(path, DataError)


def picture_files(folder: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...] | None]:
    """The pictures below a folder with their labels, in order, and the names of the classes, if it has sub-folders.

    Raises:
        DataError: there are none, too many, too much else, links that leave the folder or to folders, or pictures of
            a format that is not read.
    """
    with os.scandir(folder) as entries:
        top = EntryCount(folder)
        classes = sorted(entry.name for entry in entries if top.is_folder(entry))
    roots = [folder / name for name in classes] or [folder]
    inside = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118  # with its separator
    files: list[tuple[Path, int]] = []
    counter = EntryCount(folder)
    for label, root in enumerate(roots):
        files += [(path, label) for path in sorted(_below(root, inside, counter))]
    if not files:
        raise DataError(f"There is no picture in {folder}; looked for {', '.join(sorted(SUFFIXES))}.")
    return files, tuple(classes) or None


class EntryCount:
    """Of what a folder holds: DataError when it is too much, before the rest of it is looked at."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._pictures, self._others = folder, 0, 0

    def is_folder(self, entry: os.DirEntry[str]) -> bool:
        """Count an entry; whether it is a folder."""
        if is_picture(entry) and not entry.is_dir():
            self._pictures += 1
            if self._pictures > MAX_PICTURES:
                raise DataError(f"{shown(self._folder)} has more than {MAX_PICTURES:,} pictures; split it.")
            return False
        self._others += 1
        if self._others > MAX_OTHERS:
            raise DataError(
                f"{shown(self._folder)} has more than {MAX_OTHERS:,} files and folders that are no pictures; name a "
                "folder of pictures alone."
            )
        return entry.is_dir()


def is_picture(entry: os.DirEntry[str]) -> bool:
    """Whether it is called as a picture is, also one of a format that is not read."""
    stem, _, suffix = entry.name.rpartition(".")
    return bool(stem) and f".{suffix.lower()}" in (*SUFFIXES, *NOT_READ)


def _below(root: Path, inside: str, counter: EntryCount) -> Iterator[Path]:
    """The pictures below a folder, in any order."""
    waiting = [root]
    while waiting:
        here = waiting.pop()
        if here.is_symlink():
            raise DataError(f"{shown(here)} is a link to a folder, which is not followed; copy the folder instead.")
        with os.scandir(here) as entries:
            for entry in entries:
                if counter.is_folder(entry):
                    waiting.append(Path(entry.path))
                elif is_picture(entry):
                    if entry.is_symlink() and not os.path.realpath(entry.path).startswith(inside):
                        raise DataError(f"{shown(entry.path)} is a link out of the folder; copy the picture instead.")
                    yield Path(entry.path)
