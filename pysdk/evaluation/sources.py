"""Where images come from: a folder of pictures, an .npz, a data set or a plan, in batches and never all at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.datasets.loading import load_dataset
from pysdk.datasets.npz import MAX_NAMES
from pysdk.datasets.picture_folder import picture_files, read_alike
from pysdk.errors import DataError, OptionError
from pysdk.evaluation.gallery import collect
from pysdk.files.array_file import Npz
from pysdk.files.pictures import picture_shape
from pysdk.files.regular_file import file_sha256
from pysdk.request.request import resolve_labels
from pysdk.sampler import Sampler

Batch = tuple[NDArray[np.uint8], NDArray[np.int64] | None]
"""uint8 (n, H, W, C) and the labels int64 (n,), or None."""

BATCH_BYTES = 1 << 28
"""The most bytes of decoded images in a batch; large images come in smaller batches than asked for."""


@dataclass(frozen=True)
class Source:
    """Images that can be read again and again.

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
        split: the part of a data set.
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
        data = load_dataset(name, split)
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
        options: keywords of `Sampler.sample` that are one for all images, as JSON values.
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
            parts = collect(draw, count, work, {"plan": file_sha256(path, DataError), "seed": seed, **options})
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


def _bounded(size: int, shape: tuple[int, ...]) -> int:
    """A batch size whose batches have at most `BATCH_BYTES`."""
    return max(1, min(size, BATCH_BYTES // math.prod(shape)))


def _folder(folder: Path) -> Source:
    files, classes = picture_files(folder)

    def batches(size: int) -> Iterator[Batch]:
        shape = picture_shape(files[0][0], DataError)
        size = _bounded(size, shape)
        for start in range(0, len(files), size):
            chosen = files[start : start + size]
            pictures = [read_alike(path, shape) for path, _ in chosen]
            labels = np.array([label for _, label in chosen], np.int64) if classes else None
            yield np.stack(pictures), labels

    return Source(str(folder), len(files), batches, classes)


def _npz(path: Path) -> Source:
    """Reads its images in parts, even if they are compressed."""
    labels = class_names = None
    with Npz(path, DataError) as file:
        name = next((name for name in ("images", "arr_0") if name in file.names), None)
        if name is None:
            raise DataError(f"{path} holds {file.names[:10]}; expected an array 'images' or 'arr_0'.")
        with file.open(name) as (header, _):
            shape, dtype = header.shape, header.dtype
        if dtype != np.uint8 or header.fortran or len(shape) not in (3, 4) or not all(shape):
            raise DataError(f"images in {path} are {dtype} {shape}; expected uint8 (N, H, W) or (N, H, W, C), N >= 1.")
        if "labels" in file.names:
            labels = file.read("labels", 8 * shape[0])
        if "class_names" in file.names:
            class_names = tuple(str(text) for text in file.read("class_names", MAX_NAMES).reshape(-1))
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != shape[:1]):
        raise DataError(f"labels in {path} are {labels.dtype} {labels.shape}; expected whole numbers ({shape[0]},).")
    image = (*shape[1:], 1)[:3]
    if math.prod(image) > BATCH_BYTES:
        raise DataError(f"images in {path} have {math.prod(image):,} bytes each, expected at most {BATCH_BYTES:,}.")
    found = None if labels is None else labels.astype(np.int64)

    def batches(size: int) -> Iterator[Batch]:
        size = _bounded(size, image)
        with Npz(path, DataError) as file, file.open(name) as (header, data):
            if header.shape != shape:
                raise DataError(f"{path} has changed while it was read.")
            for start in range(0, shape[0], size):
                n = min(size, shape[0] - start)
                values = data.read(n * math.prod(image))
                if len(values) != n * math.prod(image):
                    raise DataError(f"{path} ends before its {shape[0]} images do; write it again.")
                images = np.frombuffer(values, np.uint8).reshape(n, *image)
                yield images, None if found is None else found[start : start + n]

    return Source(str(path), shape[0], batches, class_names)
