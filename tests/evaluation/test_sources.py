"""Images from folders, archives, data sets and plans: the same in any batch size."""

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.places import FASHION_MNIST
from kit.tiny_networks import write_toy_plan
from numpy.typing import NDArray
from PIL import Image

from pysdk import Images, Plan, Sampler
from pysdk.errors import DataError, OptionError
from pysdk.evaluation.sources import Source, open_source, plan_source
from pysdk.plan.writer import write_plan

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), np.uint8)


def gathered(source: Source, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    batches = list(source.batches(size))
    assert all(len(images) <= size for images, _ in batches)
    labels = [label for _, label in batches if label is not None]
    return np.concatenate([images for images, _ in batches]), np.concatenate(labels) if labels else None


def assert_same_in_any_batch(source: Source, images: NDArray[np.uint8], labels: list[int] | None) -> None:
    assert source.count == len(images)
    for size in (1, 3, 100):
        found, found_labels = gathered(source, size)
        assert np.array_equal(found, images)
        assert labels is None if found_labels is None else found_labels.tolist() == labels


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "a.npz", images=PIXELS, labels=np.arange(7, dtype=np.uint8), class_names=np.array(list("abcdefg")))
    source = open_source(str(tmp_path / "a.npz"))
    assert_same_in_any_batch(source, PIXELS, list(range(7)))
    assert source.class_names == tuple("abcdefg")
    save(tmp_path / "gray.npz", PIXELS[..., 0])
    assert_same_in_any_batch(open_source(str(tmp_path / "gray.npz")), PIXELS[..., :1], None)
    Images(PIXELS).save(tmp_path / "samples.npz")
    assert_same_in_any_batch(open_source(str(tmp_path / "samples.npz"), count=5), PIXELS[:5], None)


def test_folders(tmp_path: Path) -> None:
    Images(PIXELS).save(f"{tmp_path}/flat/")
    assert_same_in_any_batch(open_source(str(tmp_path / "flat")), PIXELS, None)
    for label, part in enumerate((slice(0, 3), slice(3, 7))):
        Images(PIXELS[part]).save(f"{tmp_path}/class{label}/")
    (tmp_path / "flat").rename(tmp_path.parent / "elsewhere")
    source = open_source(str(tmp_path))
    assert_same_in_any_batch(source, PIXELS, [0, 0, 0, 1, 1, 1, 1])
    assert source.class_names == ("class0", "class1")
    assert_same_in_any_batch(open_source(str(tmp_path), count=4), PIXELS[:4], [0, 0, 0, 1])


def test_plans(tmp_path: Path) -> None:
    path = write_toy_plan(tmp_path / "toy.plan", num_classes=3)
    with Sampler(path, threads=1) as sampler:
        expected = np.asarray(sampler.sample(7, seed=4, steps=3))
        assert_same_in_any_batch(plan_source(sampler, 7, 4, steps=3), expected, [0, 1, 2, 0, 1, 2, 0])
        kept = plan_source(sampler, 7, 4, work=tmp_path / "work", steps=3)
        assert np.array_equal(gathered(kept, 100)[0], expected)
        assert np.array_equal(gathered(kept, 100)[0], expected)
        with pytest.raises(OptionError, match="choose another --work folder"):
            gathered(plan_source(sampler, 7, 5, work=tmp_path / "work", steps=3), 100)
        with pytest.raises(OptionError, match="number of images is 0"):
            plan_source(sampler, 0)


def test_bad_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        open_source(str(tmp_path / "none.npz"))
    with pytest.raises(DataError, match="no data set 'nothing'"):
        open_source("nothing")
    with pytest.raises(DataError, match="no picture"):
        open_source(str(tmp_path))
    with pytest.raises(OptionError, match="number of images is 0"):
        open_source(str(FASHION_MNIST), count=0)
    with pytest.raises(DataError, match="has 1000 images, but 1001"):
        open_source(str(FASHION_MNIST), count=1001)
    with pytest.raises(OptionError, match="split is 'half'"):
        open_source("fashion-mnist", "half")
    arrays: list[tuple[dict[str, Any], str]] = [
        ({"x": PIXELS}, "expected an array 'images' or 'arr_0'"),
        ({"images": PIXELS.astype(np.float32)}, r"float32 \(7, 4, 5, 3\); expected uint8"),
        ({"images": PIXELS[0, 0]}, r"uint8 \(5, 3\); expected"),
        ({"images": PIXELS[:0]}, "N >= 1"),
        ({"images": np.asfortranarray(PIXELS)}, "expected uint8"),
        ({"images": PIXELS, "labels": np.zeros(6, np.int64)}, r"labels in .* int64 \(6,\)"),
        ({"images": PIXELS, "labels": np.zeros(7)}, "labels in .* float64"),
        ({"images": np.array([{}])}, "not a readable .npz|expected uint8"),
    ]
    for number, (content, message) in enumerate(arrays):
        np.savez(tmp_path / f"{number}.npz", **content)
        with pytest.raises(DataError, match=message):
            open_source(str(tmp_path / f"{number}.npz"))


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_damaged_archives_are_named(tmp_path: Path, keep: float) -> None:
    data = FASHION_MNIST.read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=r"cut.npz' is not a readable"):
        open_source(str(tmp_path / "cut.npz"))
    changed = bytearray(data)
    changed[len(data) // 3] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(changed)
    with pytest.raises(DataError, match=r"flipped.npz"):
        gathered(open_source(str(tmp_path / "flipped.npz")), 100)


def test_pictures_of_two_sizes_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 5)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b.png has shape \(5, 4, 3\)"):
        gathered(open_source(str(tmp_path)), 1)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b.png' is not a readable picture"):
        gathered(open_source(str(tmp_path)), 5)


def test_a_large_plan_is_hashed_in_parts(tmp_path: Path) -> None:
    size = 64 << 20
    with Plan.open(write_toy_plan(tmp_path / "toy.plan")) as plan:
        members = {name: bytes(plan.member(name)) for name in plan.manifest.members}
        write_plan(tmp_path / "large.plan", plan.manifest, {**members, "large.weights": bytes(size)})
    with Sampler(tmp_path / "large.plan") as sampler:
        source = plan_source(sampler, 2, work=tmp_path / "work")
        tracemalloc.start()
        try:
            assert len(next(source.batches(2))[0]) == 2
            assert tracemalloc.get_traced_memory()[1] < size // 8
        finally:
            tracemalloc.stop()
    settings = json.loads((tmp_path / "work" / "settings.json").read_text())
    assert settings["plan"] == hashlib.sha256((tmp_path / "large.plan").read_bytes()).hexdigest()
