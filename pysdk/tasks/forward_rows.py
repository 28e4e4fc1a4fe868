"""Rows that diffuse: x_t = S_t x_0 + N_t z (DDPM, eq. 4) and from one timestep to a later one, with no network."""

from __future__ import annotations

import dataclasses

import numpy as np

from pysdk.diffusion.schedule import Float64Array, Schedule
from pysdk.diffusion.table import STEP_COLUMNS, StepTable
from pysdk.errors import OptionError


def forward_row(timestep: int, a: float, s: float) -> Float64Array:
    """x' = a x + s z, which ends at `timestep`; float64 (1, columns)."""
    return StepTable.from_columns(t=[timestep], skip=1.0, a=a, s=s).rows


def from_clean(table: StepTable, schedule: Schedule) -> StepTable:
    """`table` after a row that diffuses clean data to the timestep at which it starts.

    The network's input c_in x is S_t x_0 + N_t z in every parameterisation, so x is that over c_in.
    """
    timestep, c_in = int(table.timesteps[0]), float(table.column("c_in")[0])
    abar = float(schedule.alphas_cumprod[timestep])
    row = forward_row(timestep, np.sqrt(abar) / c_in, np.sqrt(1 - abar) / c_in)
    return with_rows(table, np.concatenate([row, table.rows]))


def with_rows(table: StepTable, rows: Float64Array) -> StepTable:
    """A table with other rows, at the timesteps of their column t."""
    return dataclasses.replace(table, rows=rows, timesteps=rows[:, STEP_COLUMNS.index("t")])


def require_independent_rows(table: StepTable, solver: str, use: str) -> None:
    """OptionError unless each row is a function of x alone, so that rows can be repeated."""
    remembers = [name for name in ("c1", "c2", "g", "save") if table.column(name).any()]
    if remembers or (table.column("c_in") != 1).any():
        raise OptionError(
            f"solver {solver!r} builds on the rows before or rescales x, and {use} repeats rows; use 'ddpm' or 'ddim'"
        )
