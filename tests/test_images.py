"""Rounding, grids to the pixel, and every form of output."""

import io
import os
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.processes import IMPORTS
from PIL import Image

from pysdk.errors import NumericalError, OptionError, OptionTypeError, OutputError
from pysdk.images import Images, save_gif, to_uint8


def batch(count: int, height: int = 4, width: int = 5, channels: int = 1, seed: int = 0) -> Images:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels))
    return Images(pixels.astype(np.uint8))


def exact(value: float) -> int:
    """The stated rule in rational numbers, each operation rounded to float32."""
    clipped = Fraction(min(max(value, -1.0), 1.0))
    shifted = np.float32(float(clipped + 1))  # exact in float64, one rounding
    scaled = np.float32(float(Fraction(float(shifted)) * Fraction(255, 2)))
    return round(Fraction(float(scaled)))  # Python rounds halves to even


def test_to_uint8_is_the_stated_rule() -> None:
    steps = np.arange(-1.0, 1.0, 1 / 255, dtype=np.float64)
    near = np.concatenate([np.nextafter(steps, side, dtype=np.float64) for side in (-2, 2)])
    random = np.random.default_rng(0).uniform(-1.5, 1.5, 2000)
    special = [0.0, -0.0, 1.0, -1.0, 3.4e38, -3.4e38, np.inf, -np.inf, 1e-45]
    values = np.concatenate([steps, near, random, special]).astype(np.float32)
    got = to_uint8(values.reshape(1, 1, 1, -1)).ravel()
    assert got.tolist() == [exact(float(value)) for value in values]
    assert to_uint8(np.array([-1, 0, 1], np.float32).reshape(1, 3, 1, 1)).ravel().tolist() == [0, 128, 255]


def test_to_uint8_moves_channels_last_and_leaves_its_input() -> None:
    x = np.linspace(-1, 1, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    before = x.copy()
    out = to_uint8(x)
    assert out.shape == (2, 4, 5, 3)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    assert out[1, 2, 3, 0] == exact(float(x[1, 0, 2, 3]))
    assert np.array_equal(x, before)
    assert to_uint8(x[:0]).shape == (0, 4, 5, 3)
    assert np.array_equal(to_uint8(x[::-1]), out[::-1])


def test_to_uint8_refuses() -> None:
    with pytest.raises(OptionTypeError, match="float32 array, got float64"):
        to_uint8(np.zeros((1, 1, 2, 2)))  # type: ignore[arg-type]
    with pytest.raises(OptionTypeError, match="got list"):
        to_uint8([[1.0]])  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"\(N, C, H, W\), got \(2, 2\)"):
        to_uint8(np.zeros((2, 2), np.float32))
    x = np.zeros((3, 1, 2, 2), np.float32)
    x[2, 0, 1, 1] = np.nan
    with pytest.raises(NumericalError, match="image 2 of 3 has NaN"):
        to_uint8(x)


def test_images_is_an_array_without_a_copy() -> None:
    pixels = np.zeros((2, 3, 4, 1), np.uint8)
    images = Images(pixels)
    assert np.shares_memory(images, pixels)
    assert isinstance(images[:1], Images)
    assert isinstance(pickle.loads(pickle.dumps(images)), Images)
    assert (images == pixels).all()
    with pytest.raises(OptionTypeError, match="uint8 array, got float64"):
        Images(np.zeros((1, 2, 2, 1)))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"\(N, H, W, C\), got \(2, 2\)"):
        Images(np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "columns", "padding", "scale"), [(5, None, 2, None), (5, 2, 0, 1), (1, 9, 3, 4)])
def test_grid_to_the_pixel(channels: int, count: int, columns: int | None, padding: int, scale: int | None) -> None:
    images = batch(count, channels=channels)
    got = np.asarray(images.grid(columns, padding, scale)).reshape(
        -1, images.grid(columns, padding, scale).width, channels
    )
    across = min(columns or 3, count)
    down = -(-count // across)
    k = scale or 12  # 56 / 5, rounded up
    expected = np.full(
        (down * (4 * k + padding) - padding, across * (5 * k + padding) - padding, channels), 255, np.uint8
    )
    for index in range(count):
        for y in range(4 * k):
            for x in range(5 * k):
                row, column = divmod(index, across)
                at = row * (4 * k + padding) + y, column * (5 * k + padding) + x
                expected[at] = images[index, y // k, x // k]
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(("side", "scale"), [(1, 56), (28, 2), (32, 2), (55, 2), (56, 1), (64, 1)])
def test_grid_enlarges_small_images(side: int, scale: int) -> None:
    assert batch(1, side, side).grid().size == (side * scale, side * scale)


def test_a_single_picture_has_no_border(tmp_path: Path) -> None:
    images = batch(1, channels=3)
    images.save(tmp_path / "a.png", scale=1)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(np.asarray(picture), images[0])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"columns": 0}, OptionError, "columns is 0, expected a whole number from 1"),
        ({"padding": -1}, OptionError, "padding is -1, expected a whole number from 0"),
        ({"scale": 0}, OptionError, "scale is 0, expected a whole number from 1"),
        ({"scale": 1.5}, OptionTypeError, "scale is 1.5, expected a whole number from 1"),
        ({"columns": True}, OptionError, "columns is True, expected a whole number from 1"),
    ],
)
def test_grid_options(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        batch(2).grid(**options)


def test_pictures_need_one_or_three_channels(tmp_path: Path) -> None:
    latents = batch(2, channels=4)
    for call in (latents.grid, latents.to_pil, lambda: latents.save(tmp_path / "a.png")):
        with pytest.raises(OptionError, match=r"1 or 3 channels, these have 4; save them as \.npz"):
            call()
    latents.save(tmp_path / "a.npz")
    with pytest.raises(OptionError, match="no images"):
        batch(0).grid()
    with pytest.raises(OptionError, match=r"\(N, H, W, C\), this is uint8 \(4, 5, 1\)"):
        batch(1)[0].to_pil()


def test_to_pil() -> None:
    for channels, mode in ((1, "L"), (3, "RGB")):
        images = batch(3, channels=channels)
        pictures = images.to_pil()
        assert [picture.mode for picture in pictures] == [mode] * 3
        for picture, image in zip(pictures, images, strict=True):
            assert np.array_equal(np.asarray(picture).reshape(image.shape), image)


def test_notebook_picture() -> None:
    images = batch(120, 28, 28)
    data = images._repr_png_()
    assert data is not None
    with Image.open(io.BytesIO(data)) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(Images(images[:100]).grid()))
    odds: list[Any] = [images[0], images[..., 0], images / 2, images[:0], batch(1, channels=2)]
    for odd in odds:
        assert odd._repr_png_() is None


def test_save_grids(tmp_path: Path) -> None:
    images = batch(5, 28, 28, 3)
    for name in ("a.png", "a.webp", "a.PNG"):
        images.save(tmp_path / name, columns=5, padding=1, scale=1)
        with Image.open(tmp_path / name) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(images.grid(5, 1, 1)))
    for name in ("a.jpg", "a.jpeg"):
        images.save(str(tmp_path / name))
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "JPEG"
            assert picture.size == images.grid().size
    gray = batch(2)
    gray.save(tmp_path / "gray.webp", scale=1)
    with Image.open(tmp_path / "gray.webp") as picture:
        assert np.array_equal(np.asarray(picture.convert("L")), np.asarray(gray.grid(scale=1)))


def test_what_is_no_longer_images_is_not_saved_as_them(tmp_path: Path) -> None:
    images = Images(np.zeros((2, 3, 4, 1), np.uint8))
    for other in (images * 0.5, images[0]):
        for name in ("a.npz", "a.png"):
            with pytest.raises(OptionError, match=r"uint8 \(N, H, W, C\), this is"):
                other.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_save_npz_as_the_evaluator_reads_it(tmp_path: Path) -> None:
    images = batch(3, channels=3)
    images.save(tmp_path / "a.npz")
    images.save(tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert stored.files == ["arr_0"]
        assert np.array_equal(stored["arr_0"], images)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("ending", ["", "/"])
def test_save_folder(tmp_path: Path, ending: str) -> None:
    images = batch(3)
    images.save(f"{tmp_path / 'run'}{ending}")
    files = sorted((tmp_path / "run").iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    for file, image in zip(files, images, strict=True):
        with Image.open(file) as picture:
            assert np.array_equal(np.asarray(picture)[..., None], image)
    with pytest.raises(OutputError, match="it exists already"):
        images.save(f"{tmp_path / 'run'}{ending}")


def test_a_slash_makes_any_name_a_folder(tmp_path: Path) -> None:
    batch(1).save(f"{tmp_path / 'v1.5'}/")
    assert (tmp_path / "v1.5" / "00000.png").is_file()


def test_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    write = Path.write_bytes

    def fail_at_the_third(path: Path, data: bytes) -> int:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail_at_the_third)
    with pytest.raises(OutputError, match="the disk is full"):
        batch(5).save(tmp_path / "run")
    assert len(written) == 2
    assert list(tmp_path.iterdir()) == []


def test_save_refuses(tmp_path: Path) -> None:
    images = batch(2)
    with pytest.raises(OptionError, match=r"cannot be saved as '.tiff'; use .png"):
        images.save(tmp_path / "a.tiff")
    with pytest.raises(OutputError, match="there is no folder"):
        images.save(tmp_path / "missing" / "a.png")
    with pytest.raises(OptionTypeError, match="str or a Path"):
        images.save(3)  # type: ignore[arg-type]
    for name in ("a.npz", "folder"):
        with pytest.raises(OptionError, match="options of a grid"):
            images.save(tmp_path / name, columns=2)
    (tmp_path / "d.png").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        images.save(tmp_path / "d.png")
    with pytest.raises(OutputError, match=r"70000x1 cannot be encoded as \.jpg"):
        batch(1, 1, 70_000).save(tmp_path / "a.jpg", scale=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.png"]


def test_gif(tmp_path: Path) -> None:
    frames = [batch(4, 28, 28, seed=seed) for seed in range(5)]
    save_gif(iter(frames), tmp_path / "a.gif", duration=50, hold=700)
    with Image.open(tmp_path / "a.gif") as movie:
        assert movie.n_frames == 5
        assert movie.info["loop"] == 0
        for index, frame in enumerate(frames):
            movie.seek(index)
            assert movie.info["duration"] == (700 if index == 4 else 50)
            assert np.array_equal(np.asarray(movie.convert("L")), np.asarray(frame.grid()))


def test_gif_of_colours_and_of_one_frame(tmp_path: Path) -> None:
    save_gif([batch(1, channels=3)], tmp_path / "a.gif", scale=1)
    with Image.open(tmp_path / "a.gif") as movie:
        assert movie.size == (5, 4)
        assert np.array_equal(np.asarray(movie.convert("RGB")), batch(1, channels=3)[0])  # 20 colours fit


def test_gif_refuses(tmp_path: Path) -> None:
    frames = [batch(1), batch(1, seed=1)]
    with pytest.raises(OptionError, match=r"saved as \.gif"):
        save_gif(frames, tmp_path / "a.png")
    for options in ({"duration": 25}, {"hold": 1_000_000}):
        with pytest.raises(OptionError, match="multiple of 10"):
            save_gif(frames, tmp_path / "a.gif", **options)
    with pytest.raises(OptionError, match="duration is 0, expected a whole number from 20"):
        save_gif(frames, tmp_path / "a.gif", duration=0)
    with pytest.raises(OptionError, match="got no frames"):
        save_gif([], tmp_path / "a.gif")
    with pytest.raises(OptionError, match="frames of one shape"):
        save_gif([batch(1), batch(2)], tmp_path / "a.gif")
    with pytest.raises(OutputError, match="there is no folder"):
        save_gif(frames, tmp_path / "missing" / "a.gif")
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, signal, sys
import numpy as np
from pysdk.errors import OutputError
from pysdk.images import Images, save_gif
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
pixels = np.random.default_rng(0).integers(0, 256, (4, 120, 120, 3)).astype(np.uint8)
for name in ("a.png", "a.jpg", "a.webp", "a.npz", "a.gif", "folder"):
    try:
        if name == "a.gif":
            save_gif([pixels], "a.gif")
        else:
            Images(pixels).save(name)
        print(name, "written")
    except OutputError as error:
        print(name, str(error).rpartition(": ")[2])
"""


def test_outputs_that_really_do_not_fit(tmp_path: Path) -> None:
    environment = os.environ | IMPORTS
    command = [sys.executable, "-c", FULL]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    reason = "it grew larger than a file may be here"
    names = ("a.png", "a.jpg", "a.webp", "a.npz", "a.gif", "folder")
    assert done.stdout.splitlines() == [f"{name} {reason}" for name in names], done.stderr
    assert list(tmp_path.iterdir()) == []


def test_pillow_is_imported_only_when_needed() -> None:
    environment = os.environ | IMPORTS
    command = [sys.executable, "-c", "import sys, pysdk.images; sys.exit('PIL' in sys.modules)"]
    subprocess.run(command, check=True, env=environment)
