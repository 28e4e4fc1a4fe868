"""Reads the data set that a `--data` argument names."""

from __future__ import annotations

from pathlib import Path

from pysdk.datasets.dataset import Dataset
from pysdk.datasets.known import FASHION_MNIST_FOLDER, cifar10, fashion_mnist
from pysdk.datasets.npz import npz
from pysdk.datasets.picture_folder import image_folder
from pysdk.errors import DataError, OptionError


def load_dataset(source: str, split: str = "train") -> Dataset:
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
