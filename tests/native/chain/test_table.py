"""StepTable and Clip refuse what the chain cannot run, and cannot be changed afterwards."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from pysdk import _native
from pysdk.diffusion.table import STEP_COLUMNS, Clip, StepTable
from pysdk.errors import OptionError, ScheduleError


def test_columns_are_named_once():
    assert _native.STEP_COLUMNS == STEP_COLUMNS
    assert (
        " ".join(STEP_COLUMNS)
        == "t c_in p q a b h c1 c2 g s log_beta log_beta_tilde save skip unguided grad known known_noise"
    )


def test_defaults_and_lookup():
    table = StepTable.from_columns(t=[9, 4, 0], a=[1, 2, 3], b=0.5)
    assert len(table) == 3
    assert table.column("a").tolist() == [1, 2, 3]
    assert table.column("b").tolist() == [0.5] * 3
    assert table.column("c_in").tolist() == [1] * 3
    assert table.column("g").tolist() == [0] * 3
    assert table.timesteps.tolist() == [9, 4, 0]
    assert table.clip == Clip.none()
    rows = table.float32()
    assert rows.dtype == np.float32
    assert rows.shape == (3, len(STEP_COLUMNS))
    assert rows.flags.c_contiguous


def test_rows_alone_are_enough():
    assert StepTable(np.eye(2, len(STEP_COLUMNS))).timesteps.tolist() == [1, 0]


def test_a_table_is_read_only_and_keeps_no_reference():
    t = np.array([2.0, 1.0])
    table = StepTable.from_columns(t=t, timesteps=[20, 10])
    t[:] = 5
    assert table.column("t").tolist() == [2, 1]
    assert table.timesteps.tolist() == [20, 10]
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        table.column("a")[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.init_scale = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda table: pickle.loads(pickle.dumps(table))])
def test_copies_are_read_only_too(copied: Any):
    table = StepTable.from_columns(t=[2.0, 1.0], timesteps=[20, 10], clip=Clip.clamp(2), a=1.5, init_scale=3)
    other = copied(table)
    np.testing.assert_array_equal(other.rows, table.rows)
    assert (other.timesteps.tolist(), other.clip, other.init_scale) == ([20, 10], Clip.clamp(2), 3.0)
    with pytest.raises(ValueError, match="read-only"):
        other.rows[0, 0] = 1


def test_columns_may_be_tensors_of_torch():
    table = StepTable.from_columns(t=torch.tensor([2.0, 1.0]), a=torch.tensor([0.5, 0.25], dtype=torch.float64))
    assert table.column("a").tolist() == [0.5, 0.25]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, int])
def test_init_scale_may_be_any_real_number(kind: Any):
    assert StepTable.from_columns(t=[1.0], init_scale=kind(2)).init_scale == 2.0


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"t": []}, ScheduleError, "no rows"),
        ({"t": [1.0], "a": np.nan}, ScheduleError, "row 0, column a is nan"),
        ({"t": [1.0, 2.0], "s": [0, np.inf]}, ScheduleError, "row 1, column s is inf"),
        ({"t": [1.0], "b": 1e39}, ScheduleError, "row 0, column b is 1e.39; it must be finite as float32"),
        ({"t": [1.0], "save": 0.5}, ScheduleError, "save is 0.5; it must be 0 or 1"),
        ({"t": [1.0], "s": 0.5, "learned_variance": True}, ScheduleError, "s is 0.5; .* with learned variance"),
        ({"t": [1.0], "skip": 2}, ScheduleError, "skip is 2; it must be 0 or 1"),
        ({"t": [1.0], "unguided": -1}, ScheduleError, "unguided is -1; it must be 0 or 1"),
        ({"t": [1.0], "skip": 1, "b": 0.5}, ScheduleError, "column b is 0.5; it must be 0 where skip is 1"),
        ({"t": [1.0, 2.0], "skip": [0, 1], "grad": 1}, ScheduleError, "row 1, column grad is 1; it must be 0 where"),
        ({"t": np.zeros(2**24 + 1)}, ScheduleError, "the table has 16777217 rows; a chain has 1 to 16777216"),
        ({"t": [1.0], "a": [1, 2]}, ScheduleError, r"column a has shape \(2,\); \(1,\) or one number"),
        ({"t": 1.0}, ScheduleError, "one timestep per row"),
        ({"t": ["x"]}, ScheduleError, "t is not an array of numbers"),
        ({"t": [1.0], "timesteps": [1, 2]}, ScheduleError, r"timesteps has shape \(2,\)"),
        ({"t": [1.0], "timesteps": [np.nan]}, ScheduleError, "timesteps holds NaN"),
        ({"t": [1.0], "alpha": 1}, OptionError, "no column 'alpha'"),
        ({"a": 1.0}, OptionError, "column t is missing"),
        ({"t": [1.0], "init_scale": math.inf}, OptionError, "init_scale is inf"),
        ({"t": [1.0], "init_scale": 1e39}, OptionError, "finite as float32"),
        ({"t": [1.0], "clip": "clamp"}, OptionError, "clip is 'clamp'; use Clip"),
    ],
)
def test_from_columns_errors(columns: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        StepTable.from_columns(**columns)


def test_wrong_shape_of_rows():
    with pytest.raises(ScheduleError, match=r"rows has shape \(3, 2\); \(K, 19\) is needed: t, c_in"):
        StepTable(np.zeros((3, 2)), timesteps=np.zeros(3))
    with pytest.raises(OptionError, match="no column 'z'"):
        StepTable.from_columns(t=[1.0]).column("z")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clip.clamp(0), "clip limit is 0.0"),
        (lambda: Clip.clamp(math.nan), "clip limit is nan"),
        (lambda: Clip.clamp(1e39), "clip limit is 1e.39"),
        (lambda: Clip.dynamic(0), "clip ratio is 0.0"),
        (lambda: Clip.dynamic(1.5), "clip ratio is 1.5"),
        (lambda: Clip.dynamic(max_threshold=0.5), "max_threshold is 0.5"),
        (lambda: Clip("soft"), "clip kind is 'soft'"),  # type: ignore[arg-type]
    ],
)
def test_clip_errors(make: Any, message: str):
    with pytest.raises(OptionError, match=message):
        make()
