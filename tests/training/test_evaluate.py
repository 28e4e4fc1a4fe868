"""Evaluation: samples are collected once, and the report tells good samples from bad ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pysdk.errors import DataError, OptionError
from pysdk.training import classifier
from pysdk.training.data import Dataset, load
from pysdk.training.evaluate import class_shares, collect, cycling_labels, real_distances, report

ROOT = Path(__file__).parents[2]
SUBSET = load(str(ROOT / "tests" / "data" / "fashion_mnist_1000.npz"))
SETTINGS = {"seed": 0, "solver": "ddim"}


class Gallery:
    """Image i is all i; like a sampler, it gives the same images in any chunk."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, int]] = []

    def __call__(self, start: int, count: int) -> NDArray[np.uint8]:
        self.drawn.append((start, count))
        return np.tile(np.arange(start, start + count, dtype=np.uint8)[:, None, None, None], (1, 2, 3, 1))


def gathered(gallery: Gallery, count: int, folder: Path, **settings: object) -> NDArray[np.uint8]:
    return collect(gallery, count, folder, SETTINGS | settings, chunk=4, progress=False)


def test_chunks_are_drawn_once(tmp_path: Path) -> None:
    gallery = Gallery()
    images = gathered(gallery, 10, tmp_path / "deep" / "work")
    assert images.shape == (10, 1, 2, 3)
    assert images[:, 0, 0, 0].tolist() == list(range(10))
    assert gallery.drawn == [(0, 4), (4, 4), (8, 2)]
    assert np.array_equal(gathered(gallery, 10, tmp_path / "deep" / "work"), images)
    assert np.array_equal(gathered(gallery, 6, tmp_path / "deep" / "work"), images[:6])
    assert len(gallery.drawn) == 3
    assert len(gathered(gallery, 13, tmp_path / "deep" / "work")) == 13
    assert gallery.drawn[3:] == [(8, 4), (12, 1)]


def test_stopped_collection_goes_on(tmp_path: Path) -> None:
    gallery = Gallery()

    def stopped(start: int, count: int) -> NDArray[np.uint8]:
        if start == 8:
            raise KeyboardInterrupt
        return gallery(start, count)

    with pytest.raises(KeyboardInterrupt):
        collect(stopped, 12, tmp_path, SETTINGS, chunk=4, progress=False)
    assert gathered(gallery, 12, tmp_path)[:, 0, 0, 0].tolist() == list(range(12))
    assert gallery.drawn == [(0, 4), (4, 4), (8, 4)]


def test_samples_of_other_settings_are_refused(tmp_path: Path) -> None:
    gathered(Gallery(), 4, tmp_path)
    with pytest.raises(OptionError, match="choose another --work folder"):
        gathered(Gallery(), 4, tmp_path, seed=1)
    with pytest.raises(OptionError, match="choose another --work folder"):
        collect(Gallery(), 4, tmp_path, SETTINGS, chunk=2, progress=False)


@pytest.mark.parametrize("name", ["00000000.npz", "settings.json"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    gathered(Gallery(), 4, tmp_path)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(DataError, match=name):
        gathered(Gallery(), 4, tmp_path)


def test_labels_cycle_in_any_chunk() -> None:
    whole = cycling_labels(0, 25, 10)
    assert whole.tolist() == [i % 10 for i in range(25)]
    assert np.array_equal(np.concatenate([cycling_labels(i, 5, 10) for i in range(0, 25, 5)]), whole)


def test_shares_of_the_classes() -> None:
    shares = class_shares(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]), ("a", "b", "c"))
    assert shares == {"all": 0.75, "each": {"a": 1.0, "b": 0.5}}


def test_real_distances_shrink_with_the_number_of_images() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(2000, 4)), rng.normal(size=(2000, 4))
    few, many = real_distances(train, test, 20), real_distances(train, test, 5000)
    assert few["train_half_train_half"] == many["train_half_train_half"] < 0.02
    assert many["train_subset_test"] < 0.02 < few["train_subset_test"]


def test_report_tells_good_from_bad() -> None:
    assert SUBSET.labels is not None
    order = np.random.default_rng(0).permutation(1000)
    train, test = (
        Dataset(SUBSET.images[rows], SUBSET.labels[rows], SUBSET.class_names) for rows in (order[:300], order[300:600])
    )
    model = classifier.load(ROOT / "models" / "fashion-mnist-classifier")
    good = report(train.images, train.labels, train, test, model)
    noisy = train.images // 2 + np.random.default_rng(1).integers(0, 128, train.images.shape, np.uint8)
    assert train.labels is not None
    bad = report(noisy, (train.labels + 1) % 10, train, test, model)
    assert good["frechet_distance"] == pytest.approx(good["real"]["train_subset_test"])
    assert bad["frechet_distance"] > 5 * good["frechet_distance"]
    assert good["in_class"]["all"] > 0.85
    assert bad["in_class"]["all"] < 0.5
    assert good["classifier_accuracy"]["all"] > 0.85
    assert list(good["in_class"]["each"]) == list(SUBSET.class_names or ())
    few = Dataset(train.images[:9])
    assert report(few.images, None, few, few, model).keys() == {"samples", "frechet_distance", "real"}
    assert json.loads(json.dumps(good)) == good
