"""A solver and its timesteps, so that a chain can start midway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pysdk.checks import whole_number
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import StepTable
from pysdk.diffusion.timesteps import Int64Array, make_timesteps
from pysdk.errors import OptionError
from pysdk.plan.manifest import Manifest
from pysdk.request.solver_table import TIMESTEP_OPTIONS, resolve_table, with_defaults
from pysdk.solvers import LEVEL_OPTIONS


@dataclass(frozen=True)
class Course:
    """A solver on a list of timesteps.

    Attributes:
        solver: its name.
        timesteps: int64 (K,), descending.
        options: the solver's.
    """

    solver: str
    timesteps: Int64Array
    options: dict[str, Any]

    def starting_at(self, timestep: object, schedule: Schedule) -> Course:
        """`timestep`, 0 to T - 1, and then the timesteps of this course below it."""
        first = whole_number("timestep", timestep, 0, len(schedule) - 1)
        return Course(self.solver, np.append(first, self.timesteps[self.timesteps < first]), self.options)

    def table(self, manifest: Manifest, schedule: Schedule) -> StepTable:
        """The solver's table.

        Raises:
            OptionError: the solver does not start at the first timestep.
        """
        listed = [int(t) for t in self.timesteps]
        table = resolve_table(manifest, schedule, self.solver, listed, self.options)
        if table.timesteps[0] != listed[0]:
            raise OptionError(
                f"solver {self.solver!r} with these options starts at timestep {table.timesteps[0]:g}, not at "
                f"{listed[0]}, where the images are; use one that visits the timesteps it is given"
            )
        return table


def resolve_course(manifest: Manifest, schedule: Schedule, solver: Any, steps: Any, options: dict[str, Any]) -> Course:
    """The timesteps for a solver's name, its options and the plan's defaults.

    Raises:
        OptionError: the solver is a table, which cannot start midway, or as `resolve_table`.
    """
    if isinstance(solver, StepTable):
        raise OptionError("solver is a StepTable, which cannot start midway; give the name of a solver")
    if "prev_timestep" in options:
        raise OptionError("prev_timestep counts strides in a full list of timesteps; leave it out here")
    levels = [name for name in LEVEL_OPTIONS if name in options]
    if levels:
        raise OptionError(f"{levels[0]} spreads levels over a whole chain, this one begins in the middle; leave it out")
    name, steps, chosen = with_defaults(manifest, solver, steps, options)
    spread = {option: chosen.pop(option) for option in TIMESTEP_OPTIONS if option in chosen}
    for option in ("prev_timestep", *LEVEL_OPTIONS):  # the plan's own
        chosen.pop(option, None)
    return Course(name, make_timesteps(len(schedule), steps, **spread), chosen)
