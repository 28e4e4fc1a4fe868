"""Files that strangers made to hang, crash or fill the machine: each is refused in one sentence, fast."""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kit.attacks.pictures_and_arrays import HEADERS, IGNORED, PICTURES, jpeg, npy, overlapping_exif, png, special
from kit.processes import IMPORTS
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pysdk.datasets.loading import load_dataset
from pysdk.datasets.picture_folder import EntryCount
from pysdk.diffusion.schedule import Schedule
from pysdk.errors import CheckpointError, DataError, OptionError, PysdkError, ScheduleError
from pysdk.evaluation.features import OnnxFeatures
from pysdk.evaluation.gallery import collect
from pysdk.evaluation.sources import open_source
from pysdk.files.pictures import _without_applications, picture_shape, read_picture
from pysdk.files.regular_file import file_sha256, read_file, read_object, shown
from pysdk.training.checkpoint import load_model
from pysdk.training.unet import UNetConfig

pytestmark = pytest.mark.timeout(20)


@pytest.mark.parametrize("name", PICTURES)
def test_a_hostile_picture(tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PICTURES[name])
    before = Image.MAX_IMAGE_PIXELS
    refused(lambda: read_picture(path, OptionError), OptionError)
    refused(lambda: load_dataset(str(tmp_path)), DataError)
    assert before == Image.MAX_IMAGE_PIXELS
    assert not recwarn.list


READERS: dict[str, Callable[[Path], object]] = {
    "read_picture": lambda path: read_picture(path, OptionError),
    "picture_shape": lambda path: picture_shape(path, OptionError),
    "training": lambda path: load_dataset(str(path.parent)),
    "evaluation": lambda path: list(open_source(str(path.parent)).batches(2)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", IGNORED)
def test_a_bomb_in_what_no_picture_needs(tmp_path: Path, name: str, reader: str) -> None:
    (tmp_path / "a.png").write_bytes(IGNORED[name])
    start = time.process_time()
    _, most = peak(lambda: READERS[reader](tmp_path / "a.png"))
    assert most < 3 * len(IGNORED[name]) + (1 << 20)
    assert time.process_time() - start < 2  # 8,000 profiles of a megabyte each would take longer
    assert not read_picture(tmp_path / "a.png", OptionError).any()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("target", [None, "L", "RGB"])
def test_a_png_without_its_texts_has_the_same_pixels(tmp_path: Path, mode: str, target: str | None) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 4), np.uint8)
    picture = Image.fromarray(noise).convert(mode if mode != "I;16" else "L")
    picture = picture.convert("I;16") if mode == "I;16" else picture
    texts = PngInfo()
    texts.add_text("a", "b", zip=True)
    more = {"transparency": 3} if mode == "P" else {}
    picture.save(tmp_path / "a.png", pnginfo=texts, icc_profile=bytes(100), gamma=0.3, dpi=(1, 2), **more)
    with Image.open(tmp_path / "a.png") as whole:
        expected = np.asarray(whole.convert(target or ("L" if whole.mode == "L" else "RGB")))
    found = read_picture(tmp_path / "a.png", DataError, mode=target)
    np.testing.assert_array_equal(found.squeeze(), expected)


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".tiff"])
def test_formats_that_are_not_read_are_named(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / f"a{suffix}")
    for name in (f"a{suffix}", "a.png"):  # under a wrong name as well
        (tmp_path / f"a{suffix}").rename(tmp_path / name) if name == "a.png" else None
        refused(lambda name=name: read_picture(tmp_path / name, OptionError), OptionError, "PNG, JPEG, WebP or BMP")


LIMITED = """
import resource, sys
from pathlib import Path
from PIL import Image, JpegImagePlugin
from pysdk.errors import DataError
from pysdk.files.pictures import read_picture
read_picture(Path(sys.argv[1]) / "plain.jpg", DataError)
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
print(read_picture(Path(sys.argv[1]) / "exif.jpg", DataError).shape)
"""


def test_tables_of_a_jpeg_that_overlap_cost_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain.jpg").write_bytes(jpeg())
    data = overlapping_exif()
    (tmp_path / "exif.jpg").write_bytes(data)
    seen = b"".join(_without_applications(data))  # what Pillow gets: newer ones would bear the tables
    assert b"Exif" not in seen
    assert len(seen) < 1000
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | IMPORTS)
    assert done.stdout == "(16, 16, 3)\n", done.stderr


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"c", "icc_profile": bytes(70_000)}])
def test_a_jpeg_without_its_segments_has_the_same_pixels(tmp_path: Path, mode: str, options: dict[str, object]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, {"L": 1, "RGB": 3, "CMYK": 4}[mode]), np.uint8)
    data = jpeg(Image.fromarray(noise.squeeze(), mode), **options)
    (tmp_path / "a.jpg").write_bytes(data)
    with Image.open(io.BytesIO(data)) as whole:
        expected = np.asarray(whole if mode == "L" else whole.convert("RGB"))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg", DataError).squeeze(), expected)


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_npz(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", npy(HEADERS[name]))
    refused(lambda: load_dataset(str(path)), DataError)
    refused(lambda: list(open_source(str(path)).batches(256)), DataError)


USES: dict[str, Callable[[Path], object]] = {
    "a.png": lambda path: read_picture(path, DataError),
    "a.npz": lambda path: load_dataset(str(path)),
    "b.npz": lambda path: list(open_source(str(path)).batches(2)),
    "c.onnx": OnnxFeatures,
    "in/a.png": lambda path: load_dataset(str(path.parent)),
    "in/b.png": lambda path: list(open_source(str(path.parent)).batches(2)),
    "run/model.json": lambda path: load_model(path.parent),
    "work/settings.json": lambda path: list(collect(lambda *_: np.zeros((1, 4, 4, 1), np.uint8), 1, path.parent, {})),
    "cifar/test_batch.bin": lambda path: load_dataset(f"cifar10:{path.parent}", "test"),
    "object.json": lambda path: read_object(path, DataError),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_is_never_waited_for(tmp_path: Path, kind: str, use: str) -> None:
    path = tmp_path / use
    path.parent.mkdir(exist_ok=True)
    special(tmp_path, kind).rename(path)
    refused(lambda: USES[use](path), PysdkError)


def test_a_chunk_of_samples_that_is_a_pipe(tmp_path: Path) -> None:
    def draw(*_: int) -> np.ndarray:
        return np.zeros((1, 4, 4, 1), np.uint8)

    list(collect(draw, 1, tmp_path, {}))
    (tmp_path / "00000000.npz").unlink()
    os.mkfifo(tmp_path / "00000000.npz")
    refused(lambda: list(collect(draw, 1, tmp_path, {})), DataError, "is a pipe")


def test_links_stay_inside_a_folder_of_pictures(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (outside / "b.png").write_bytes(png())
    (folder / "a.png").write_bytes(png())
    (folder / "b.png").symlink_to("a.png")
    assert len(load_dataset(str(folder))) == 2
    (tmp_path / "named").symlink_to(folder)
    assert len(open_source(str(folder)).batches(4).__next__()[0]) == 2
    (folder / "c.png").symlink_to(outside / "b.png")
    refused(lambda: load_dataset(str(folder)), DataError, "link out of the folder")
    (folder / "c.png").unlink()
    (folder / "class").symlink_to(outside)
    refused(lambda: load_dataset(str(folder)), DataError, "link to a folder")
    (folder / "class").unlink()
    (folder / "class").mkdir()
    (folder / "class" / "loop").symlink_to(folder)
    refused(lambda: open_source(str(folder)), DataError, "link to a folder")


@pytest.mark.parametrize("make", ["files", "folders", "files in a class", "links to folders"])
def test_a_folder_of_much_else_is_left_early(tmp_path: Path, make: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pysdk.datasets.picture_folder.MAX_OTHERS", 50)
    looked: list[str] = []
    before = EntryCount.is_folder
    monkeypatch.setattr(EntryCount, "is_folder", lambda self, entry: looked.append(entry.name) or before(self, entry))
    inner = tmp_path / "class" if make == "files in a class" else tmp_path
    inner.mkdir(exist_ok=True)
    for index in range(500):
        path = inner / f"{index}.txt"
        if make == "folders":
            path.mkdir()
        elif make == "links to folders":
            path.symlink_to(inner)
        else:
            path.touch()
    for reader in (lambda: load_dataset(str(tmp_path)), lambda: open_source(str(tmp_path))):
        looked.clear()
        refused(reader, DataError, "more than 50 files and folders that are no pictures; name a folder of pictures")
        assert len(looked) < 60


def test_as_much_else_as_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pysdk.datasets.picture_folder.MAX_OTHERS", 5)
    monkeypatch.setattr("pysdk.datasets.picture_folder.MAX_PICTURES", 3)
    for name in ("a.png", "b.PNG", "c.png", ".png", "png", "a.txt", "d.png.part", "e."):
        (tmp_path / name).write_bytes(png())
    assert len(load_dataset(str(tmp_path))) == 3
    (tmp_path / "z.png").write_bytes(png())
    refused(lambda: load_dataset(str(tmp_path)), DataError, "has more than 3 pictures; split it")


def test_large_pictures_come_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pysdk.evaluation.sources.BATCH_BYTES", 40)
    for name in "abcde":
        (tmp_path / f"{name}.png").write_bytes(png())
    assert [len(images) for images, _ in open_source(str(tmp_path)).batches(256)] == [2, 2, 1]
    np.savez(tmp_path / "a.npz", images=np.zeros((5, 4, 4), np.uint8))
    assert [len(images) for images, _ in open_source(str(tmp_path / "a.npz")).batches(256)] == [2, 2, 1]
    monkeypatch.setattr("pysdk.datasets.picture_folder.given", lambda: 100)
    refused(lambda: load_dataset(str(tmp_path)), DataError, "memory")


def test_a_gzip_bomb_in_place_of_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pysdk.datasets.known._MAX_IDX", 1 << 16)
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes(gzip.compress(bytes(1 << 17)))
    refused(lambda: load_dataset(f"fashion-mnist:{tmp_path}"), DataError, "more than 65,536 bytes")


@pytest.mark.parametrize("dimensions", [0, 100])
def test_dimensions_that_fashion_mnist_has_not(tmp_path: Path, dimensions: int) -> None:
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        data = bytes([0, 0, 8, dimensions]) + struct.pack(">I", 1) * dimensions + b"\0"
        (tmp_path / name).write_bytes(gzip.compress(data))
    refused(lambda: load_dataset(f"fashion-mnist:{tmp_path}"), DataError, "dimensions")


@pytest.mark.parametrize(
    "changed",
    [
        {"num_res_blocks": 10**7},
        {"num_res_blocks": [10**7, 1]},
        {"num_res_blocks": 1.5},
        {"channel_mult": [1] * 10**5},
        {"channel_mult": [10**9, 1]},
        {"model_channels": 2**40},
        {"num_classes": 10**12},
        {"image_shape": [1, 28]},
        {"image_shape": [1, 2**40, 2**40]},
        {"image_shape": "abc"},
        {"attention_levels": 3},
        {"dropout": "x"},
        {"more": 1},
    ],
)
def test_numbers_of_a_checkpoint_are_bounded(tmp_path: Path, changed: dict[str, object]) -> None:
    unet = {"image_shape": [1, 28, 28], "model_channels": 32, "channel_mult": [1, 2], **changed}
    (tmp_path / "model.json").write_text(json.dumps({"name": "a", "unet": unet}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    refused(lambda: load_model(tmp_path), CheckpointError)


def test_timesteps_are_bounded() -> None:
    refused(lambda: Schedule.linear(10**8), OptionError, "expected a whole number from 1 to 100000")
    refused(lambda: Schedule.from_betas(np.full(100_001, 1e-9)), ScheduleError, "at most 100000")
    refused(lambda: UNetConfig(num_res_blocks=10**8), OptionError, "num_res_blocks")


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"\xff", b"", b"1" * 10_000])
def test_json_that_is_no_object(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "settings.json").write_bytes(data)
    refused(lambda: read_object(tmp_path / "settings.json", DataError), DataError)
    refused(lambda: list(collect(lambda *_: np.zeros(0, np.uint8), 1, tmp_path, {})), DataError)


def test_files_are_of_bounded_size_and_paths_of_bounded_length(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    refused(lambda: read_file(tmp_path / "sparse", 10, DataError), DataError, "at most 10")
    refused(lambda: read_file("/proc/self/maps", 10, DataError), DataError, "at most 10")  # says it has no bytes
    refused(lambda: read_file("a\0b", 10, DataError), DataError)
    refused(lambda: read_file("n" * 10_000, 10, DataError), DataError)
    refused(lambda: file_sha256("/dev/zero", DataError), DataError, "is a device")
    assert len(shown("n" * 10_000)) < 200
    assert "\n" not in shown("a\nb")


def peak(action: Callable[[], object]) -> tuple[object, int]:
    """What it returns, and the most bytes that Python's objects had meanwhile."""
    tracemalloc.start()
    try:
        return action(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(action: Callable[[], object], kind: type[PysdkError], words: str = "") -> None:
    with pytest.raises(kind) as caught:
        action()
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 900
