"""Training images as uint8 arrays: Fashion-MNIST, CIFAR-10, folders of pictures, .npz files."""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import DataError, OptionError
from pysdk.files.array_file import Npz
from pysdk.files.pictures import NOT_READ, SUFFIXES, picture_shape, read_picture
from pysdk.files.regular_file import machine_memory, read_file, shown

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10_RECORD = 1 + 3 * 32 * 32
_MAX_CIFAR10, _MAX_IDX = 1 << 26, 1 << 28
"""The most bytes in a file: twice CIFAR-10's, five times Fashion-MNIST's."""
MAX_PICTURES = 4_000_000
"""The most pictures in a folder."""
MAX_NAMES = 1 << 24
"""The most bytes of class names in an .npz."""


@dataclass(frozen=True)
class Dataset:
    """Images in memory.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), or None.
        class_names: one name per class, or None.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or 0 in self.images.shape:
            raise DataError(
                f"Images are {self.images.dtype} of shape {self.images.shape}; expected uint8 (N, C, H, W), N >= 1."
            )
        if self.labels is None:
            return
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.images),):
            raise DataError(
                f"Labels are {self.labels.dtype} of shape {self.labels.shape}; expected int64, one for each of the "
                f"{len(self.images)} images."
            )
        low, high, classes = self.labels.min(), self.labels.max(), self.num_classes or 0
        if low < 0 or high >= classes:
            raise DataError(f"Labels go from {low} to {high}; expected 0 to {classes - 1}.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int | None:
        """One more than the largest label, or the number of class names; None without labels."""
        if self.labels is None:
            return None
        return len(self.class_names) if self.class_names else int(self.labels.max()) + 1


def load(source: str, split: str = "train") -> Dataset:
    """The data set that a `--data` argument names.

    Args:
        source: "fashion-mnist" or "fashion-mnist:FOLDER", "cifar10:FOLDER" (the binary version's folder), a folder of
            pictures (one sub-folder per class, or pictures directly), or an .npz file with `images` uint8
            (N, H, W[, C]) and optionally `labels`.
        split: "train" or "test"; folders and .npz files have no parts.

    Raises:
        DataError: it is not there (the message holds the command that gets it) or it is damaged.
        OptionError: `split` is neither.
    """
    if split not in ("train", "test"):
        raise OptionError(f"split is {split!r}; expected 'train' or 'test'.")
    name, _, folder = source.partition(":")
    if name == "fashion-mnist":
        return fashion_mnist(Path(folder) if folder else FASHION_MNIST_FOLDER, split)
    if name == "cifar10":
        return cifar10(Path(folder or "cifar-10-batches-bin"), split)
    path = Path(source)
    if path.suffix == ".npz":
        return npz(path)
    if path.is_dir():
        return image_folder(path)
    raise DataError(
        f"There is no data set {source!r}; expected 'fashion-mnist', 'cifar10:FOLDER', a folder of pictures or an .npz "
        "file."
    )


def fashion_mnist(folder: Path = FASHION_MNIST_FOLDER, split: str = "train") -> Dataset:
    """60,000 ("train") or 10,000 ("test") garments, 1x28x28, 10 classes (1708.07747, MIT)."""
    prefix = {"train": "train", "test": "t10k"}[split]
    images, labels = folder / f"{prefix}-images-idx3-ubyte.gz", folder / f"{prefix}-labels-idx1-ubyte.gz"
    if not (images.exists() and labels.exists()):
        raise DataError(
            f"Fashion-MNIST is not in {folder}: get it with `sudo apt-get install dataset-fashion-mnist` (Debian, "
            "Ubuntu), or name the folder of its four .gz files as 'fashion-mnist:FOLDER'."
        )
    pixels = _idx(images)
    return Dataset(pixels[:, None], _idx(labels).astype(np.int64), FASHION_MNIST_CLASSES)


def _idx(path: Path) -> NDArray[np.uint8]:
    """An array of bytes in the IDX format: 0, 0, type 8, dimensions, then big-endian sizes, then the data."""
    try:
        with gzip.open(io.BytesIO(read_file(path, _MAX_IDX, DataError))) as file:
            data = file.read(_MAX_IDX + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged ({error}); fetch it again.") from error
    if len(data) > _MAX_IDX:
        raise DataError(f"{path} holds more than {_MAX_IDX:,} bytes; Fashion-MNIST's files are smaller.")
    if len(data) < 4 or data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{path} is not an IDX file of bytes.")
    if not 1 <= data[3] <= 3:
        raise DataError(f"{path} has {data[3]} dimensions, expected 1 to 3; fetch it again.")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if body.size != math.prod(shape):
        raise DataError(f"{path} promises shape {shape} but holds {body.size} bytes; fetch it again.")
    values: NDArray[np.uint8] = body.reshape(shape).copy()  # writable, which torch asks for
    return values


def cifar10(folder: Path, split: str = "train") -> Dataset:
    """50,000 ("train") or 10,000 ("test") pictures, 3x32x32, 10 classes, from the binary version's .bin files.

    The Python version of the archive holds pickles, which are never opened.
    """
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise DataError(
            f"CIFAR-10 is not in {folder} ({missing[0]} is missing): get cifar-10-binary.tar.gz from "
            "https://www.cs.toronto.edu/~kriz/cifar.html, unpack it and name its folder as 'cifar10:FOLDER'."
        )
    batches = [np.frombuffer(read_file(folder / name, _MAX_CIFAR10, DataError), np.uint8) for name in names]
    for name, batch in zip(names, batches, strict=True):
        if not batch.size or batch.size % _CIFAR10_RECORD:
            raise DataError(
                f"{folder / name} has {batch.size} bytes, no multiple of {_CIFAR10_RECORD}; fetch it again."
            )
    records = np.concatenate(batches).reshape(-1, _CIFAR10_RECORD)
    return Dataset(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64), CIFAR10_CLASSES)


def npz(path: Path) -> Dataset:
    """An .npz with `images` uint8 (N, H, W) or (N, H, W, C) and optionally `labels` (N,) and `class_names`."""
    limit = machine_memory() // 2
    with Npz(path, DataError) as file:
        if "images" not in file.names:
            raise DataError(f"{path} holds {file.names[:10]}; expected an array 'images'.")
        images = file.read("images", limit)
        labels = file.read("labels", limit) if "labels" in file.names else None
        texts = file.read("class_names", MAX_NAMES) if "class_names" in file.names else None
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise DataError(f"images in {path} have shape {images.shape}; expected (N, H, W) or (N, H, W, C).")
    if labels is not None and labels.dtype.kind not in "iu":
        raise DataError(f"labels in {path} are {labels.dtype}; expected whole numbers.")
    names = None if texts is None else tuple(str(name) for name in texts.reshape(-1))
    channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return Dataset(channels_first, None if labels is None else labels.astype(np.int64), names)


def image_folder(folder: Path) -> Dataset:
    """All pictures below a folder, of one size; its sub-folders, if it has any, are the classes in sorted order."""
    files, classes = picture_files(folder)
    height, width, channels = picture_shape(files[0][0], DataError)
    needed = len(files) * height * width * channels
    if needed > machine_memory() // 2:
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
        DataError: there are none, too many, links that leave the folder or to folders, or pictures of a format that is
            not read.
    """
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    roots = [folder / name for name in classes] or [folder]
    inside = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118  # with its separator
    files: list[tuple[Path, int]] = []
    for label, root in enumerate(roots):
        found: list[Path] = []
        for path in _below(root, inside):
            found.append(path)
            if len(files) + len(found) > MAX_PICTURES:
                raise DataError(f"{shown(folder)} has more than {MAX_PICTURES:,} pictures; split it.")
        files += [(path, label) for path in sorted(found)]
    if not files:
        raise DataError(f"There is no picture in {folder}; looked for {', '.join(sorted(SUFFIXES))}.")
    return files, tuple(classes) or None


def _below(root: Path, inside: str) -> Iterator[Path]:
    """The pictures below a folder, in any order."""
    waiting = [root]
    while waiting:
        here = waiting.pop()
        if here.is_symlink():
            raise DataError(f"{shown(here)} is a link to a folder, which is not followed; copy the folder instead.")
        with os.scandir(here) as entries:
            for entry in entries:
                path = Path(entry.path)
                if entry.is_dir():
                    waiting.append(path)
                elif path.suffix.lower() in (*SUFFIXES, *NOT_READ):
                    if entry.is_symlink() and not os.path.realpath(path).startswith(inside):
                        raise DataError(f"{shown(path)} is a link out of the folder; copy the picture instead.")
                    yield path
