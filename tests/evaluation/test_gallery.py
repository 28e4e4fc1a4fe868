"""Samples are collected once, and a stopped collection goes on."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pysdk.errors import DataError, OptionError
from pysdk.evaluation.gallery import collect

SETTINGS = {"seed": 0, "solver": "ddim"}


class Gallery:
    """Image i is all i; like a sampler, it gives the same images in any chunk."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, int]] = []

    def __call__(self, start: int, count: int) -> NDArray[np.uint8]:
        self.drawn.append((start, count))
        return np.tile(np.arange(start, start + count, dtype=np.uint8)[:, None, None, None], (1, 2, 3, 1))


def gathered(gallery: Gallery, count: int, folder: Path, **settings: object) -> NDArray[np.uint8]:
    return np.concatenate(list(collect(gallery, count, folder, SETTINGS | settings, chunk=4)))


def test_chunks_are_drawn_once(tmp_path: Path) -> None:
    gallery = Gallery()
    images = gathered(gallery, 10, tmp_path / "deep" / "work")
    assert images.shape == (10, 2, 3, 1)
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
        list(collect(stopped, 12, tmp_path, SETTINGS, chunk=4))
    assert gathered(gallery, 12, tmp_path)[:, 0, 0, 0].tolist() == list(range(12))
    assert gallery.drawn == [(0, 4), (4, 4), (8, 4)]


def test_samples_of_other_settings_are_refused(tmp_path: Path) -> None:
    gathered(Gallery(), 4, tmp_path)
    with pytest.raises(OptionError, match="choose another --work folder"):
        gathered(Gallery(), 4, tmp_path, seed=1)
    with pytest.raises(OptionError, match="choose another --work folder"):
        list(collect(Gallery(), 4, tmp_path, SETTINGS, chunk=2))


@pytest.mark.parametrize("name", ["00000000.npz", "settings.json"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    gathered(Gallery(), 4, tmp_path)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(DataError, match=name):
        gathered(Gallery(), 4, tmp_path)
