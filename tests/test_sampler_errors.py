"""Whatever cannot be done is refused with an error of its own, before anything runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.tiny_networks import write_toy_plan

from pysdk import Plan, Sampler, StepTable, errors
from pysdk.errors import EngineError, NumericalError, OptionError, OptionTypeError, PlanError, PysdkError, ScheduleError
from pysdk.plan.manifest import DefaultsInfo

SHAPE = (2, 1, 8, 8)
GROWING = StepTable.from_columns(t=[2.0, 1.0, 0.0], a=1e30)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (OptionError, {"n": -1}, "n is -1, expected a whole number from 0"),
        (OptionTypeError, {"n": 2.0}, "n is 2.0, expected a whole number"),
        (OptionError, {"n": True}, "n is True"),
        (OptionError, {"n": 2**33}, "n is 8589934592"),
        (OptionError, {"start": -1}, "start is -1"),
        (OptionError, {"start": 2**64 - 1}, "start is 18446744073709551615"),
        (OptionError, {"seed": -1}, "seed is -1, expected a whole number from 0 to 18446744073709551615"),
        (OptionError, {"seed": 2**64}, "seed is 18446744073709551616"),
        (OptionError, {"seed": -1, "n": 0}, "seed is -1"),
        (OptionTypeError, {"seed": 0.5}, "seed is 0.5, expected a whole number"),
        (OptionTypeError, {"seed": "12"}, "seed is '12'"),
        (OptionTypeError, {"seed": None}, "seed is None"),
        (OptionError, {"seed": [1, 2, 3]}, "seed has 3 values, expected one number or one per image, 2"),
        (OptionTypeError, {"seed": [1, 2.5]}, "seed is 2.5"),
        (OptionError, {"steps": 0}, "steps is 0, expected 1 to 1000"),
        (OptionError, {"steps": 1001}, "steps is 1001, expected 1 to 1000, the timesteps of the schedule"),
        (OptionError, {"steps": []}, "steps is an empty list"),
        (OptionError, {"steps": [5, 5]}, "strictly descending"),
        (OptionError, {"steps": [1000, 0]}, "expected timesteps from 0 to 999"),
        (OptionError, {"steps": "ddim999"}, "no integer stride takes 999 of 1000"),
        (OptionTypeError, {"steps": 2.5}, "steps is 2.5, expected an int"),
        (OptionError, {"solver": StepTable.from_columns(t=[1000.0])}, "visits timesteps 1000 to 1000, .* knows 0 to 9"),
        (OptionError, {"solver": StepTable.from_columns(t=[5.0, -1.0])}, "visits timesteps -1 to 5"),
        (OptionError, {"solver": "heun", "sigmas": "karras", "spacing": "trailing"}, "spacing would not be used"),
        (OptionError, {"solver": "magic"}, r"solver is 'magic', expected one of .*'ddim', 'ddpm'"),
        (OptionTypeError, {"solver": 3}, "solver is 3, expected a solver's name or a StepTable"),
        (OptionError, {"eta": 2}, r"eta is 2, expected a number from 0"),
        (OptionTypeError, {"eta": "much"}, "eta is 'much'"),
        (OptionError, {"beta": 1}, r"solver 'ddim' has no option 'beta'; it has \['clip', 'eta'"),
        (OptionError, {"solver": "ddpm", "eta": 0.5}, "solver 'ddpm' has no option 'eta'"),
        (OptionError, {"prediction_type": "sample"}, "solver 'ddim' has no option 'prediction_type'"),
        (OptionError, {"schedule": "cosine"}, "solver 'ddim' has no option 'schedule'"),
        (OptionError, {"spacing": "tight"}, "spacing is 'tight'"),
        (OptionError, {"solver": "ddpm", "variance": "none"}, "variance is 'none'"),
        (OptionTypeError, {"clip": 1.0}, "clip is 1.0, expected Clip.none()"),
        (OptionError, {"labels": 4}, "labels hold 4, expected classes from 0 to 2, or 3 for no class"),
        (OptionError, {"labels": [0, -1]}, "labels hold -1"),
        (OptionError, {"labels": [0, 1, 2]}, r"labels has shape \(3,\), expected .* one per image, shape \(2,\)"),
        (OptionError, {"labels": []}, r"labels has shape \(0,\)"),
        (OptionError, {"labels": [[0], [1, 2]]}, "labels is .*, expected one number or 2 of them"),
        (OptionTypeError, {"labels": 1.0}, "labels has dtype float64, expected a whole number"),
        (OptionTypeError, {"labels": "1"}, "labels has dtype <U1"),
        (OptionError, {"guidance_scale": float("nan")}, "guidance_scale is nan, expected finite numbers"),
        (OptionError, {"guidance_scale": [2.0, float("inf")]}, "expected finite numbers"),
        (OptionError, {"guidance_scale": 1e39}, "guidance_scale is 1e.39, expected finite numbers"),
        (OptionError, {"guidance_scale": [1.0] * 3}, r"guidance_scale has shape \(3,\)"),
        (OptionTypeError, {"guidance_scale": "3"}, "guidance_scale has dtype <U1"),
        (OptionError, {"output": "jpeg"}, "output is 'jpeg', expected 'uint8', 'float32', 'pil' or 'dlpack'"),
        (OptionError, {"initial": np.zeros(SHAPE)}, r"initial is float64 .* a float32 array of shape \(2, 1, 8, 8\)"),
        (
            OptionError,
            {"initial": np.zeros((3, *SHAPE[1:]), np.float32)},
            r"initial is float32 of shape \(3, 1, 8, 8\)",
        ),
        (OptionError, {"initial": [0.0]}, "initial is list"),
        (OptionError, {"solver": "reverse_ddim", "steps": 4}, "has no noise to start from.*initial="),
        (OptionError, {"noise": np.zeros((4, *SHAPE), np.float32), "steps": 4}, r"expected .* \(5, 2, 1, 8, 8\)"),
        (OptionError, {"noise": lambda *_: np.zeros(SHAPE)}, "what noise returned for draw 0 is float64"),
        (OptionError, {"noise": lambda *_: np.zeros((1, 1, 8, 8), np.float32)}, r"draw 0 is float32 of shape \(1, 1"),
        (OptionError, {"initial": np.full(SHAPE, np.nan, np.float32)}, "initial holds NaN or infinity"),
        (NumericalError, {"noise": lambda *_: np.full(SHAPE, np.nan, np.float32)}, "image 0 became NaN or infinite"),
        (NumericalError, {"solver": GROWING}, "image 0 became NaN or infinite in 3 rows"),
        (OptionError, {"eta": 10**400}, "eta is 1000"),
        (OptionError, {"steps": "9" * 5000}, "expected 'ddimN' or counts"),
        (OptionError, {"spacing": ["leading"]}, r"spacing is \['leading'\], expected one of"),
    ],
)
def test_arguments(conditional: Sampler, error: type[PysdkError], options: dict[str, Any], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        conditional.sample(**{"n": 2, **options})
    assert "\n" not in str(caught.value)
    assert conditional.sample(1, steps=2).shape == (1, 8, 8, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 0}, "labels were given, but 'tiny' has no classes; leave them out"),
        ({"guidance_scale": 2.0}, "guidance_scale is 2.0, but 'tiny' was trained without a null label"),
        ({"guidance_scale": [1.0, 2.0]}, "without a null label"),
        ({"solver": "ddpm", "variance": "learned"}, "variance is 'learned', but 'tiny' has no learned variance"),
    ],
)
def test_what_this_model_cannot(unconditional: Sampler, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        unconditional.sample(2, **options)
    unconditional.sample(2, steps=2, guidance_scale=1.0)


def test_classes_without_a_null_label(tmp_path: Path) -> None:
    with Sampler(write_toy_plan(tmp_path / "toy.plan", num_classes=3)) as sampler:
        assert sampler.sample(3, guidance_scale=1).shape == (3, 2, 2, 1)
        with pytest.raises(OptionError, match="without a null label: only 1"):
            sampler.sample(1, guidance_scale=3.0)
        with pytest.raises(OptionError, match=r"labels hold 3, expected classes from 0 to 2$"):
            sampler.sample(1, labels=3)


def test_tables_of_ones_own(conditional: Sampler, unconditional: Sampler) -> None:
    with pytest.raises(ScheduleError, match="row 1, column b is nan"):
        conditional.sample(1, solver=StepTable.from_columns(t=[1.0, 0.0], b=[1.0, np.nan]))
    table = StepTable.from_columns(t=[1.0, 0.0], b=1.0, q=1.0)
    with pytest.raises(OptionError, match="solver is a StepTable, which is complete; leave out steps, eta"):
        conditional.sample(1, solver=table, steps=2, eta=0.5)
    learned = StepTable.from_columns(t=[1.0, 0.0], b=1.0, q=1.0, learned_variance=True)
    with pytest.raises(OptionError, match="'tiny' has no learned variance"):
        unconditional.sample(1, solver=learned)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (OptionError, {"threads": 0}, "threads is 0, expected a whole number from 1 to 256"),
        (OptionError, {"threads": 257}, "threads is 257"),
        (OptionTypeError, {"threads": 1.5}, "threads is 1.5"),
        (OptionError, {"batch_size": 0}, "batch_size is 0"),
        (OptionTypeError, {"batch_size": "4"}, "batch_size is '4'"),
        (EngineError, {"engine": "quantum"}, r"no engine 'quantum' that runs on this machine \(it has onnxruntime\)"),
    ],
)
def test_making_a_sampler(tmp_path: Path, error: type[PysdkError], options: dict[str, Any], message: str) -> None:
    path = write_toy_plan(tmp_path / "toy.plan")
    with pytest.raises(error, match=message):
        Sampler(path, **options)


def damaged(data: bytes, kind: str) -> bytes:
    if kind == "truncated":
        return data[: len(data) // 2]
    if kind == "edited manifest":
        return data.replace(b'"toy"', b'"tax"')
    if kind == "edited network":
        at = data.index(b"multiplication")
        return data[:at] + b"M" + data[at + 1 :]
    return b"ONNX, they said"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "is cut short"),
        ("edited manifest", "is damaged or edited: the checksum of manifest.json"),
        ("edited network", "is damaged or edited: 'network.onnx' has SHA-256 [0-9a-f]{12}, the manifest says"),
        ("something else", "is not a plan"),
    ],
)
def test_damaged_plans(tmp_path: Path, kind: str, message: str) -> None:
    path = write_toy_plan(tmp_path / "toy.plan")
    path.write_bytes(damaged(path.read_bytes(), kind))
    with pytest.raises(PlanError, match=message):
        Sampler(path)


def test_missing_plans_and_future_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.PlanNotFoundError, match=r"there is no plan at .*missing\.plan'; build one with"):
        Sampler(tmp_path / "missing.plan")
    with pytest.raises(OptionTypeError, match="the path of a plan is a str or a Path, got int"):
        Sampler(7)  # type: ignore[arg-type]
    path = write_toy_plan(tmp_path / "toy.plan")
    monkeypatch.setattr("pysdk.plan.manifest.READABLE_VERSIONS", (2,))
    with pytest.raises(PlanError, match="has format version 1, this pysdk reads version 2"):
        Sampler(path)


def test_defaults_that_no_solver_can_use(tmp_path: Path) -> None:
    """A plan is untrusted: its defaults are checked like arguments."""
    for options, message in [
        ({"steps": 3}, "has no option 'steps'"),
        ({"prediction_type": "sample"}, "has no option 'prediction_type'"),
        ({"clip": "hard"}, "clip is 'hard'"),
    ]:
        path = write_toy_plan(tmp_path / "toy.plan", defaults=DefaultsInfo(options=options))
        with Sampler(path) as sampler, pytest.raises(PysdkError, match=message):
            sampler.sample(1)


def test_a_closed_sampler(tmp_path: Path) -> None:
    sampler = Sampler(write_toy_plan(tmp_path / "toy.plan"))
    sampler.sample(2)
    with sampler:
        pass
    with pytest.raises(EngineError, match=r"this sampler is closed; open the plan again with Sampler\(path\)"):
        sampler.sample(2)
    sampler.close()
    assert "closed" in repr(sampler)


def test_a_closed_plan(tmp_path: Path) -> None:
    plan = Plan.open(write_toy_plan(tmp_path / "toy.plan"))
    plan.close()
    with pytest.raises(PlanError, match="is closed; open it again"):
        Sampler(plan)
