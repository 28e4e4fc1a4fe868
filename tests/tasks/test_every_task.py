"""What holds for all uses: the bits of the numpy twin, the same image in any batch, and refusals."""

from typing import Any

import numpy as np
import pytest
from kit.tiny_networks import write_toy_plan
from kit.twin import twin
from PIL import Image

from pysdk import Clip, Images, Sampler, StepTable
from pysdk.errors import OptionError, OptionTypeError

MASK = np.zeros((8, 8), bool)
MASK[:, 4:] = True
PART = {"steps": 6, "labels": [0, 1, 2, 0, 1], "seed": 3, "start": 7}
CHAIN = {"solver": "ddpm", **PART}
USES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "encode": ("encode", (), {"labels": 1, "steps": 5}),
    "encode, guided": ("encode", (), {"labels": [0, 1, 2, 0, 1], "steps": 5, "guidance_scale": 2.0}),
    "image_to_image": ("image_to_image", (), {"strength": 0.7, **CHAIN, "variance": "learned"}),
    "image_to_image, guided": ("image_to_image", (), {"timestep": 333, **PART, "guidance_scale": [1, 2, 0, 3, 4]}),
    "inpaint": ("inpaint", (MASK,), {"jump_length": 2, "jump_n_sample": 3, **CHAIN, "variance": "learned"}),
    "inpaint, guided": (
        "inpaint",
        (MASK,),
        {"jump_length": 2, "jump_n_sample": 2, **CHAIN, "guidance_scale": 2.0, "guidance_interval": (300, 700)},
    ),
}
uses = pytest.mark.parametrize("use", USES)


def run(sampler: Sampler, use: str, images: np.ndarray, part: slice = slice(None)) -> np.ndarray:
    method, arguments, options = USES[use]
    options = {k: v[part] if isinstance(v, list) else v for k, v in options.items()}
    if "start" in options:
        options["start"] += part.start or 0
    if method != "encode":
        options["output"] = "float32"
    return getattr(sampler, method)(images[part], *arguments, **options).view(np.uint32)


@uses
def test_the_bits_of_the_numpy_twin(conditional: Sampler, requests_of: Any, images: np.ndarray, use: str) -> None:
    method, arguments, options = USES[use]
    (request,) = requests_of(method, images, *arguments, **options)
    np.testing.assert_array_equal(run(conditional, use, images), twin(conditional, request).view(np.uint32))


@uses
def test_any_batch(conditional: Sampler, narrow: Sampler, images: np.ndarray, use: str) -> None:
    together = run(conditional, use, images)
    np.testing.assert_array_equal(run(narrow, use, images), together)
    np.testing.assert_array_equal(run(conditional, use, images, slice(3, 4)), together[3:4])
    assert len({image.tobytes() for image in together}) == 5


def test_images_come_in_many_forms(conditional: Sampler, images: np.ndarray) -> None:
    floats = (images.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)
    expected = conditional.encode(images, steps=2)
    for given in (floats, list(floats), list(images), list(images[..., 0]), Images(images), Images(images).to_pil()):
        np.testing.assert_array_equal(conditional.encode(given, steps=2), expected)


@pytest.mark.parametrize(
    ("error", "given", "message"),
    [
        (
            OptionTypeError,
            np.zeros((2, 8, 8, 1)),
            r"images is float64, expected uint8 \(n, 8, 8, 1\), float32 \(n, 1, 8",
        ),
        (OptionTypeError, "cat.png", "images is str, expected uint8"),
        (
            OptionError,
            np.zeros((2, 9, 8, 1), np.uint8),
            r"images is uint8 of shape \(2, 9, 8, 1\), expected \(n, 8, 8, 1",
        ),
        (OptionError, np.zeros((8, 8, 1), np.uint8), r"images is uint8 of shape \(8, 8, 1\)"),
        (OptionError, np.zeros((2, 8, 8, 1), np.float32), r"images is float32 of shape .*expected \(n, 1, 8, 8\)"),
        (OptionError, np.full((1, 1, 8, 8), 255, np.float32), "images holds values from 255 to 255, expected -1 to 1"),
        (OptionError, np.full((1, 1, 8, 8), np.nan, np.float32), "images holds values from nan to nan"),
        (
            OptionError,
            [Image.new("L", (8, 8)), Image.new("P", (8, 8))],
            r"picture 1 of images has mode 'P', expected 'L'; use picture\.convert\('L'\)",
        ),
        (OptionError, [Image.new("RGB", (8, 8))], "picture 0 of images has mode 'RGB', expected 'L'"),
        (
            OptionError,
            [np.zeros((8, 8), np.uint8), np.zeros((9, 8), np.uint8)],
            "shapes .* resize or convert them",
        ),
    ],
)
def test_what_is_no_image(conditional: Sampler, error: Any, given: Any, message: str) -> None:
    for use in (conditional.encode, conditional.image_to_image, lambda given: conditional.inpaint(given, MASK)):
        with pytest.raises(error, match=message):
            use(given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": np.zeros((5, 1, 8, 8), np.float32)}, "has no option 'initial'"),
        ({"eta": 2.0, "solver": "ddim"}, "eta is 2.0"),
        ({"solver": StepTable.from_columns(t=[1.0], b=1.0)}, "solver is a StepTable, which cannot start midway"),
        ({"solver": "ddim", "prev_timestep": "stride"}, "prev_timestep counts strides in a full list of timesteps"),
        ({"solver": "euler", "sigmas": "karras"}, "sigmas spreads levels over a whole chain"),
        ({"solver": "magic"}, "solver is 'magic'"),
        ({"guidance_scale": 2.0}, "guidance_scale is given without labels, so there is nothing to guide to"),
        ({"labels": 5}, "labels hold 5"),
        ({"labels": [1, 2]}, r"labels has shape \(2,\)"),
        ({"classifier_scale": 1.0, "labels": 1}, "the plan of 'tiny' holds no classifier"),
        ({"output": "jpeg"}, "output is 'jpeg'"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_refusals(conditional: Sampler, images: np.ndarray, options: dict[str, Any], message: str) -> None:
    for use in (conditional.image_to_image, lambda given, **rest: conditional.inpaint(given, MASK, **rest)):
        with pytest.raises((OptionError, OptionTypeError), match=message):
            use(images, **options)


def test_classes_without_a_null_label_must_be_said(tmp_path: Any) -> None:
    with Sampler(write_toy_plan(tmp_path / "toy.plan", num_classes=3)) as sampler:
        given = np.zeros((1, 2, 2, 1), np.uint8)
        with pytest.raises(OptionError, match="labels are needed: 'toy' has 3 classes and no null label"):
            sampler.encode(given, steps=2)
        sampler.encode(given, steps=2, labels=0)


def test_progress_counts_every_row(conditional: Sampler, images: np.ndarray) -> None:
    told: list[tuple[int, int]] = []
    conditional.inpaint(
        images, MASK, steps=6, jump_length=2, jump_n_sample=2, progress=lambda done, total: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1] == 2 * (6 + 2 * (1 + 2))  # two batches; two jumps and what they repeat


def test_other_value_ranges(tmp_path: Any) -> None:
    """Images enter and leave in the range of the model."""
    options = {"num_classes": None, "value_range": (0.0, 1.0)}
    with Sampler(write_toy_plan(tmp_path / "toy.plan", **options)) as sampler:
        given = np.array([[[[0], [51]], [[204], [255]]]], np.uint8)
        mask = np.array([[True, False], [False, False]])
        kept = sampler.inpaint(given, mask, steps=4, jump_n_sample=1, output="float32", clip=Clip.none())
        np.testing.assert_array_equal(kept.ravel()[1:], np.array([0.2, 0.8, 1.0], np.float32))
        np.testing.assert_array_equal(
            sampler.inpaint(given, mask, steps=4, jump_n_sample=1).ravel()[1:], [51, 204, 255]
        )
        x = np.array([-1.0, 0.0, 0.5, 2.0], np.float32).reshape(1, 1, 2, 2)
        table = StepTable.from_columns(t=[0.0], a=1.0)
        assert sampler.sample(1, solver=table, initial=x).ravel().tolist() == [0, 0, 128, 255]
        with pytest.raises(OptionError, match="images holds values from -1 to 2, expected 0 to 1"):
            sampler.encode(x)
