"""Where images come from: a folder of pictures, an .npz, a data set or a plan, in batches and never all at once."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import DataError, OptionError
from pysdk.evaluation.gallery import collect
from pysdk.request import resolve_labels
from pysdk.sampler import Sampler
from pysdk.training.data import load, picture_files, read_picture

Batch = tuple[NDArray[np.uint8], NDArray[np.int64] | None]
"""uint8 (n, H, W, C) and the labels int64 (n,), or None."""

_NPZ_ERRORS = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError)


@dataclass(frozen=True)
class Source:
    """Images that can be gone through, again and again.

    Attributes:
        name: what the user called them.
        count: how many.
        batches: batch size -> iterator.
        class_names: what the labels mean, or None.
    """

    name: str
    count: int
    batches: Callable[[int], Iterator[Batch]]
    class_names: tuple[str, ...] | None = None


def open_source(name: str, split: str = "train", count: int | None = None) -> Source:
    """The first `count` images, by default all, of what a name stands for.

    Args:
        name: a folder of pictures (its sub-folders are classes), an .npz of uint8 (N, H, W[, C]) called `images` or
            `arr_0` (optionally with `labels`), or a data set as in `pysdk train`: "fashion-mnist", "cifar10:FOLDER".
        split: of a data set.
        count: images to take.

    Raises:
        DataError: it is not there, damaged, or has fewer images.
        OptionError: `count` is below 1.
    """
    if count is not None and count < 1:
        raise OptionError(f"the number of images is {count}, expected 1 or more")
    path = Path(name)
    if path.suffix == ".npz":
        source = _npz(path)
    elif path.is_dir():
        source = _folder(path)
    else:
        data = load(name, split)
        images = data.images.transpose(0, 2, 3, 1)
        source = _array(f"{name}, {split}", images, data.labels, data.class_names)
    if count is None:
        return source
    if count > source.count:
        raise DataError(f"{name} has {source.count} images, but {count} were asked for; take fewer.")
    return _first(source, count)


def plan_source(sampler: Sampler, count: int, seed: int = 0, *, work: Path | None = None, **options: Any) -> Source:
    """Images 0 .. count - 1 of a plan's gallery, drawn when they are asked for.

    Args:
        sampler: draws them.
        count: how many.
        seed: the gallery.
        work: folder that keeps them, see `pysdk.evaluation.gallery`; then they come in its chunks.
        options: those of `Sampler.sample` that are one for all images, as JSON values.
    """
    if count < 1:
        raise OptionError(f"the number of images is {count}, expected 1 or more")
    manifest, path = sampler.plan.manifest, sampler.plan.path

    def draw(start: int, n: int) -> NDArray[np.uint8]:
        return np.asarray(sampler.sample(n, seed=seed, start=start, progress=False, **options))

    def batches(size: int) -> Iterator[Batch]:
        parts: Iterator[NDArray[np.uint8]]
        if work is None:
            parts = (draw(start, min(size, count - start)) for start in range(0, count, size))
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            parts = collect(draw, count, work, {"plan": digest, "seed": seed, **options})
        start = 0
        for images in parts:
            numbers = np.arange(start, start + len(images), dtype=np.uint64)
            yield images, resolve_labels(manifest, options.get("labels"), numbers)
            start += len(images)

    return Source(str(path), count, batches, manifest.model.class_names)


def _array(
    name: str, images: NDArray[np.uint8], labels: NDArray[np.int64] | None, class_names: tuple[str, ...] | None
) -> Source:
    def batches(size: int) -> Iterator[Batch]:
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            yield images[part], None if labels is None else labels[part]

    return Source(name, len(images), batches, class_names)


def _first(source: Source, count: int) -> Source:
    def batches(size: int) -> Iterator[Batch]:
        left = count
        for images, labels in source.batches(size):
            yield images[:left], None if labels is None else labels[:left]
            left -= len(images)
            if left <= 0:
                return

    return Source(source.name, count, batches, source.class_names)


def _folder(folder: Path) -> Source:
    files, classes = picture_files(folder)

    def batches(size: int) -> Iterator[Batch]:
        shape: tuple[int, ...] | None = None
        for start in range(0, len(files), size):
            chosen = files[start : start + size]
            pictures = [read_picture(path) for path, _ in chosen]
            for (path, _), picture in zip(chosen, pictures, strict=True):
                shape = picture.shape if shape is None else shape
                if picture.shape != shape:
                    raise DataError(
                        f"{path} has shape {picture.shape} (H, W, C) but the pictures before it {shape}: resize or "
                        "convert them to one size and mode first."
                    )
            labels = np.array([label for _, label in chosen], np.int64) if classes else None
            yield np.stack(pictures), labels

    return Source(str(folder), len(files), batches, classes)


def _npz(path: Path) -> Source:
    """Reads its images in parts, also where they are compressed."""
    if not path.exists():
        raise DataError(f"There is no file {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            member = next((name for name in ("images.npy", "arr_0.npy") if name in names), None)
            if member is None:
                raise DataError(f"{path} holds {sorted(names)}; expected an array 'images' or 'arr_0'.")
            with archive.open(member) as file:
                shape, fortran, dtype = _npy_header(file)
        labels = class_names = None
        # opened here, as numpy leaves the file of a damaged archive open
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
            if "labels" in arrays:
                labels = arrays["labels"]
            if "class_names" in arrays:
                class_names = tuple(str(name) for name in arrays["class_names"])
    except _NPZ_ERRORS as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable .npz file: {error}") from error
    if dtype != np.uint8 or fortran or len(shape) not in (3, 4) or not shape[0]:
        raise DataError(f"images in {path} are {dtype} {shape}; expected uint8 (N, H, W) or (N, H, W, C), N >= 1.")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != shape[:1]):
        raise DataError(f"labels in {path} are {labels.dtype} {labels.shape}; expected whole numbers ({shape[0]},).")
    image = (*shape[1:], 1)[:3]
    found = None if labels is None else labels.astype(np.int64)

    def batches(size: int) -> Iterator[Batch]:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                _npy_header(file)
                for start in range(0, shape[0], size):
                    n = min(size, shape[0] - start)
                    wanted = n * int(np.prod(image))
                    data = file.read(wanted)
                    if len(data) != wanted:
                        raise DataError(f"{path} ends before its {shape[0]} images do; write it again.")
                    images = np.frombuffer(data, np.uint8).reshape(n, *image)
                    yield images, None if found is None else found[start : start + n]
        except _NPZ_ERRORS as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} is not a readable .npz file: {error}") from error

    return Source(str(path), shape[0], batches, class_names)


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in Fortran's order, and dtype; the file then stands at the data."""
    npy: Any = np.lib.format  # older numpy has no types for it
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran and len(shape) > 1, dtype
