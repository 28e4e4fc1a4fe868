"""Every loader gives uint8 (N, C, H, W) with labels, and says what is wrong with a damaged or missing file."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kit.places import FASHION_MNIST
from numpy.typing import NDArray
from PIL import Image

from pysdk.datasets.dataset import Dataset
from pysdk.datasets.known import CIFAR10_CLASSES, FASHION_MNIST_CLASSES
from pysdk.datasets.loading import load_dataset
from pysdk.errors import DataError, OptionError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 4, 4), np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9], np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion_mnist(folder: Path) -> None:
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS)))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))


def write_cifar10(folder: Path) -> NDArray[np.uint8]:
    records = RNG.integers(0, 256, (7, 3073), np.uint8)
    records[:, 0] = [0, 1, 2, 3, 4, 5, 9]
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return records


def write_npz(folder: Path) -> None:
    np.savez(folder / "set.npz", images=PIXELS, labels=LABELS)


def write_png(folder: Path) -> None:
    Image.fromarray(PIXELS[0]).save(folder / "picture.png")


@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mnist(tmp_path: Path, split: str) -> None:
    write_fashion_mnist(tmp_path)
    data = load_dataset(f"fashion-mnist:{tmp_path}", split)
    assert np.array_equal(data.images, PIXELS[:, None])
    assert data.images.flags.writeable
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert np.array_equal(data.labels, LABELS)
    assert (len(data), data.num_classes, data.class_names) == (6, 10, FASHION_MNIST_CLASSES)


def test_missing_fashion_mnist_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sudo apt-get install dataset-fashion-mnist"):
        load_dataset(f"fashion-mnist:{tmp_path}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"plain text", "is damaged .* fetch it again"),
        (gzip.compress(b"\0\0\x0d\x01"), "is not an IDX file of bytes"),
        (gzip.compress(b"\0\0\x08\x03\0\0"), "is not an IDX file of bytes"),
        (gzip.compress(idx(PIXELS)[:-1]), r"promises shape \(6, 4, 4\) but holds 95 bytes"),
        (gzip.compress(idx(PIXELS[:5])), "one for each of the 5 images"),
    ],
    ids=["text", "other", "short", "cut", "labels"],
)
def test_damaged_fashion_mnist(tmp_path: Path, content: bytes, words: str) -> None:
    write_fashion_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_dataset(f"fashion-mnist:{tmp_path}")


@pytest.mark.parametrize(("split", "copies"), [("train", 5), ("test", 1)])
def test_cifar10(tmp_path: Path, split: str, copies: int) -> None:
    records = write_cifar10(tmp_path)
    data = load_dataset(f"cifar10:{tmp_path}", split)
    assert data.images.shape == (7 * copies, 3, 32, 32)
    assert np.array_equal(data.images[0], records[0, 1:].reshape(3, 32, 32))
    assert data.labels is not None
    assert np.array_equal(data.labels[:7], records[:, 0])
    assert data.class_names == CIFAR10_CLASSES


def test_missing_or_damaged_cifar10(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data_batch_1\.bin is missing.*cifar-10-binary\.tar\.gz"):
        load_dataset(f"cifar10:{tmp_path}")
    records = write_cifar10(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(DataError, match="no multiple of 3073"):
        load_dataset(f"cifar10:{tmp_path}", "test")
    records[2, 0] = 10
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes())
    with pytest.raises(DataError, match="Labels go from 0 to 10; expected 0 to 9"):
        load_dataset(f"cifar10:{tmp_path}", "test")


def test_npz_gray_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=PIXELS)
    data = load_dataset(str(tmp_path / "set.npz"))
    assert np.array_equal(data.images, PIXELS[:, None])
    assert (data.labels, data.num_classes, data.class_names) == (None, None, None)


def test_npz_colour_with_labels_and_names(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (2, 5, 4, 3), np.uint8)
    np.savez_compressed(tmp_path / "set.npz", images=pixels, labels=np.array([1, 0]), class_names=["a", "b", "c"])
    data = load_dataset(str(tmp_path / "set.npz"))
    assert np.array_equal(data.images, pixels.transpose(0, 3, 1, 2))
    assert (data.num_classes, data.class_names) == (3, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pixels": PIXELS}, r"holds \['pixels'\]; expected an array 'images'"),
        ({"images": PIXELS[0]}, r"have shape \(4, 4\)"),
        ({"images": PIXELS.astype(np.float32)}, "Images are float32"),
        ({"images": PIXELS[:0]}, "N >= 1"),
        ({"images": PIXELS, "labels": LABELS[:5]}, "one for each of the 6 images"),
        ({"images": PIXELS, "labels": LABELS / 2}, "labels in .* are float64; expected whole numbers"),
        ({"images": PIXELS, "labels": -LABELS.astype(int)}, "Labels go from -9 to -1"),
        ({"images": PIXELS, "labels": LABELS, "class_names": ["a"]}, "expected 0 to 0"),
    ],
)
def test_npz_with_wrong_arrays(tmp_path: Path, arrays: dict[str, NDArray[np.uint8]], words: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_dataset(str(tmp_path / "set.npz"))


def test_npz_never_unpickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.array([tmp_path], dtype=object))
    with pytest.raises(DataError, match="expected an array of plain numbers"):
        load_dataset(str(tmp_path / "set.npz"))


def test_bare_npy_is_no_npz(tmp_path: Path) -> None:
    with (tmp_path / "set.npz").open("wb") as file:
        np.save(file, PIXELS)
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        load_dataset(str(tmp_path / "set.npz"))


@pytest.mark.parametrize(
    ("write", "name", "source"),
    [
        (write_fashion_mnist, "train-images-idx3-ubyte.gz", "fashion-mnist:{}"),
        (write_npz, "set.npz", "{}/set.npz"),
        (write_png, "picture.png", "{}"),
    ],
)
def test_any_damage_is_a_data_error_or_harmless(
    tmp_path: Path, write: Callable[[Path], object], name: str, source: str
) -> None:
    """One flipped bit, with or without a truncation, at 300 places: whatever the libraries raise is translated."""
    write(tmp_path)
    good, damaged = (tmp_path / name).read_bytes(), 0
    rng = np.random.default_rng(1)
    for trial in range(300):
        content = bytearray(good)
        content[rng.integers(len(good))] ^= 1 << rng.integers(8)
        (tmp_path / name).write_bytes(content[: rng.integers(len(good))] if trial % 2 else content)
        try:
            load_dataset(source.format(tmp_path))
        except DataError:
            damaged += 1
    assert damaged > 150


def test_folder_with_classes(tmp_path: Path) -> None:
    for index, (name, pixels) in enumerate(zip(["b/2.png", "b/1.PNG", "a/deep/3.bmp"], PIXELS[:3], strict=True)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text(str(index))
    data = load_dataset(str(tmp_path))
    assert data.class_names == ("a", "b")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1]
    assert np.array_equal(data.images, PIXELS[[2, 1, 0], None])


def test_folder_of_colour_pictures_without_classes(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (5, 4, 4), np.uint8)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "b.png")
    Image.fromarray(pixels[..., :3]).convert("P").save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "c.png")  # RGBA
    data = load_dataset(str(tmp_path))
    assert data.images.shape == (3, 3, 5, 4)
    assert data.labels is None
    assert np.array_equal(data.images[1], pixels[..., :3].transpose(2, 0, 1))


def test_folder_with_wrong_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture"):
        load_dataset(str(tmp_path))
    write_png(tmp_path)
    Image.fromarray(PIXELS[0, :3]).save(tmp_path / "smaller.png")
    with pytest.raises(DataError, match=r"smaller\.png has shape \(1, 3, 4\).*\(1, 4, 4\)"):
        load_dataset(str(tmp_path))
    (tmp_path / "smaller.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="not a readable picture"):
        load_dataset(str(tmp_path))


def test_unknown_source_and_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 'fashion-mnist'"):
        load_dataset(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="no file"):
        load_dataset(str(tmp_path / "nothing.npz"))
    with pytest.raises(OptionError, match="split is 'val'"):
        load_dataset("fashion-mnist", "val")


def test_shipped_subset() -> None:
    data = load_dataset(str(FASHION_MNIST))
    assert data.images.shape == (1000, 1, 28, 28)
    assert data.class_names == FASHION_MNIST_CLASSES
    assert np.bincount(data.labels if data.labels is not None else []).tolist() == [100] * 10
    assert FASHION_MNIST.stat().st_size < 1_000_000


def test_data_set_wants_uint8() -> None:
    with pytest.raises(DataError, match="expected uint8"):
        Dataset(PIXELS)
