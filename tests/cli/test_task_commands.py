"""pysdk edit, inpaint and interpolate: what the methods draw, from picture files."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pysdk import Sampler
from pysdk.cli import commands

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def pysdk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, images: np.ndarray
) -> Call:
    """`pysdk` in a folder with 0.png, 1.png, mask.png (the right half) and large.png."""
    monkeypatch.chdir(tmp_path)
    for index in range(2):
        Image.fromarray(images[index, :, :, 0]).save(f"{index}.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 255
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save("large.png")

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pysdk", *map(str, arguments)])
        code = 0
        try:
            commands.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def drawn() -> np.ndarray:
    with np.load("a.npz") as arrays:
        return arrays["arr_0"]


def test_edit(pysdk: Call, conditional_plan: Path, conditional: Sampler, images: np.ndarray) -> None:
    options = (
        "--strength",
        0.4,
        "--labels",
        "2,1",
        "--seed",
        3,
        "--guidance-scale",
        2.0,
        "-s",
        "eta=0.5",
        "-o",
        "a.npz",
    )
    assert pysdk("edit", conditional_plan, "0.png", "1.png", *options) == (0, "wrote a.npz\n")
    expected = conditional.image_to_image(images[:2], strength=0.4, labels=[2, 1], seed=3, guidance_scale=2.0, eta=0.5)
    np.testing.assert_array_equal(drawn(), expected)


def test_inpaint(pysdk: Call, conditional_plan: Path, conditional: Sampler, images: np.ndarray) -> None:
    options = ("--mask", "mask.png", "--steps", 6, "--jump-length", 2, "--jump-n-sample", 2, "-o", "a.npz")
    assert pysdk("inpaint", conditional_plan, "0.png", *options) == (0, "wrote a.npz\n")
    mask = np.arange(8) >= 4
    mask = np.stack([mask] * 8)
    np.testing.assert_array_equal(
        drawn(), conditional.inpaint(images[:1], mask, steps=6, jump_length=2, jump_n_sample=2)
    )


def test_interpolate(pysdk: Call, conditional_plan: Path, conditional: Sampler, images: np.ndarray) -> None:
    options = ("-n", 3, "--steps", 5, "--labels", 1, "-o", "a.npz")
    assert pysdk("interpolate", conditional_plan, "0.png", "1.png", *options) == (0, "wrote a.npz\n")
    np.testing.assert_array_equal(drawn(), conditional.interpolate(images[0], images[1], 3, steps=5, labels=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("edit", "missing.png"), "error: There is no file 'missing.png'."),
        (
            ("edit", "large.png"),
            "of shape (1, 9, 9, 1), expected (n, 8, 8, 1); resize or convert them",
        ),
        (("edit", "0.png", "-o", "a.xyz"), "error: images cannot be saved as '.xyz'"),
        (("edit", "0.png", "-s", "snr=1"), "error: solver 'ddim' has no option 'snr'"),
        (("inpaint", "0.png", "--mask", "large.png"), "error: mask has shape (9, 9), expected (8, 8)"),
        (("interpolate", "0.png", "1.png", "-n", "1"), "error: n is 1, expected a whole number from 2"),
        (("inpaint", "0.png"), "Missing option '--mask'"),
    ],
)
def test_errors_in_one_line(pysdk: Call, conditional_plan: Path, arguments: tuple[str, ...], message: str) -> None:
    code, said = pysdk(arguments[0], conditional_plan, *arguments[1:])
    assert code in (1, 2)
    assert message in said
    assert "Traceback" not in said
    assert not list(Path().glob("out*"))
