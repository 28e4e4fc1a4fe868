"""Every command that takes pictures or arrays, against every kind of hostile file: exit code 1, one line on stderr."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from kit.attacks.command import assert_one_line, refused, run
from kit.attacks.pictures_and_arrays import HEADERS, IGNORED, PICTURES, npy
from kit.attacks.plans import KINDS, PLANS, loop, written

pytest.importorskip("torch")

pytestmark = pytest.mark.timeout(20)

FEW = ["--features", "features.onnx", "--metrics", "frechet"]
WITH_PICTURE = {
    "edit": ["edit", "good.plan", "good.png", "FILE", "-o", "new.png"],
    "inpaint": ["inpaint", "good.plan", "FILE", "--mask", "white.png", "--jump-n-sample", "1", "-o", "new.png"],
    "inpaint --mask": ["inpaint", "good.plan", "good.png", "--mask", "FILE", "-o", "new.png"],
    "interpolate": ["interpolate", "good.plan", "good.png", "FILE", "--steps", "5", "-o", "new.png"],
}
WITH_DATA = {
    "train": ["train", "--data", "DATA", "--out", "run"],
    "evaluate": ["evaluate", "DATA", "--reference", "good.npz", *FEW],
    "evaluate --reference": ["evaluate", "good.npz", "--reference", "DATA", *FEW],
    "likelihood": ["likelihood", "good.plan", "--data", "DATA", "-n", "1"],
    "compression": ["compression", "good.plan", "--data", "DATA", "-n", "1", "-o", "new.csv"],
}


@pytest.mark.parametrize("attack", [*PICTURES, *KINDS, "missing"])
@pytest.mark.parametrize("command", WITH_PICTURE)
def test_a_picture(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    {**PLANS, **{name: written(data) for name, data in PICTURES.items()}}[attack](here / "a.png")
    arguments = ["a.png" if word == "FILE" else word for word in WITH_PICTURE[command]]
    assert "a.png" in refused(arguments, monkeypatch, capfd)


@pytest.mark.parametrize("attack", IGNORED)
@pytest.mark.parametrize("command", WITH_PICTURE)
def test_a_bomb_that_no_picture_needs(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "a.png").write_bytes(IGNORED[attack])
    arguments = ["a.png" if word == "FILE" else word for word in WITH_PICTURE[command]]
    code, err = run(arguments, monkeypatch, capfd)
    if command == "inpaint --mask":  # it is black, and nothing is to be drawn
        assert_one_line(code, err)
    else:
        assert (code, err) == (0, "")


@pytest.mark.parametrize("attack", [*PICTURES, "pipe", "socket", "device"])
@pytest.mark.parametrize("command", WITH_DATA)
def test_a_folder_of_pictures(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "pictures").mkdir()
    {**KINDS, **{name: written(data) for name, data in PICTURES.items()}}[attack](here / "pictures" / "a.png")
    arguments = ["pictures" if word == "DATA" else word for word in WITH_DATA[command]]
    refused(arguments, monkeypatch, capfd)


@pytest.mark.parametrize("attack", [*HEADERS, *PLANS])
@pytest.mark.parametrize("command", WITH_DATA)
def test_an_npz(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if attack in HEADERS:
        with zipfile.ZipFile("a.npz", "w") as file:
            file.writestr("images.npy", npy(HEADERS[attack]))
    else:
        PLANS[attack](here / "a.npz")
    arguments = ["a.npz" if word == "DATA" else word for word in WITH_DATA[command]]
    refused(arguments, monkeypatch, capfd)


@pytest.mark.parametrize("attack", [*KINDS, "sparse", "text", "loop"])
def test_features(here: Path, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    {**PLANS, "loop": written(loop())}[attack](here / "a.onnx")
    refused(["evaluate", "good.npz", "--reference", "good.npz", "--features", "a.onnx"], monkeypatch, capfd)
