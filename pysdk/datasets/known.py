"""Fashion-MNIST and CIFAR-10, from the files their authors publish."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pysdk.datasets.dataset import Dataset
from pysdk.errors import DataError
from pysdk.files.regular_file import read_file

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
