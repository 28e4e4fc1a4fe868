"""Makes the step table from a solver's name, its options and the plan's defaults."""

from __future__ import annotations

from typing import Any

import numpy as np

from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip, StepTable
from pysdk.errors import OptionError, OptionTypeError
from pysdk.plan.manifest import DefaultsInfo, Manifest
from pysdk.solvers import LEVEL_OPTIONS, SOLVERS, make_table, solver_options

TIMESTEP_OPTIONS = ("spacing", "steps_offset")
"""Options of every solver, see `pysdk.diffusion.timesteps.make_timesteps`."""

SPREAD_OPTIONS = (*TIMESTEP_OPTIONS, "prev_timestep", *LEVEL_OPTIONS)
"""Options that say how a number of steps is spread; a plan's own do not apply to timesteps that are listed."""


def resolve_table(
    manifest: Manifest,
    schedule: Schedule | EdmSchedule,
    solver: str | StepTable | None,
    steps: Any,
    options: dict[str, Any],
) -> StepTable:
    """The step table for a solver's name and options, with the plan's defaults, or a table the user made."""
    if isinstance(solver, StepTable):
        if steps is not None or options:
            given = ["steps"] * (steps is not None) + sorted(options)
            raise OptionError(f"solver is a StepTable, which is complete; leave out {', '.join(given)}")
        table = solver
    else:
        table = _make_table(manifest, schedule, solver, steps, options)
    if table.learned_variance and manifest.model.variance_type != "learned_range":
        raise OptionError(
            f"variance is 'learned', but {manifest.model.name!r} has no learned variance; use 'small' or 'large'"
        )
    t = table.column("t")
    if isinstance(schedule, Schedule) and not (t.min() >= 0 and t.max() <= len(schedule) - 1):
        raise OptionError(
            f"the table visits timesteps {t.min():.6g} to {t.max():.6g}, but the network of "
            f"{manifest.model.name!r} knows 0 to {len(schedule) - 1}"
        )
    if manifest.model.whole_timesteps and (t % 1 != 0).any():
        raise OptionError(
            f"the table visits timestep {t[t % 1 != 0][0]:.6g}, but "
            f"{manifest.model.name!r} takes whole ones; use sigmas='timesteps' without s_churn"
        )
    return table


def _make_table(
    manifest: Manifest, schedule: Schedule | EdmSchedule, solver: str | None, steps: Any, options: dict[str, Any]
) -> StepTable:
    name, steps, chosen = with_defaults(manifest, solver, steps, options)
    return make_table(name, schedule, steps=steps, prediction_type=manifest.model.prediction_type, **chosen)


def with_defaults(
    manifest: Manifest, solver: str | None, steps: Any, options: dict[str, Any]
) -> tuple[str, Any, dict[str, Any]]:
    """A solver's name, steps and options, completed with what the plan knows and asks for."""
    defaults, model = manifest.defaults, manifest.model
    if solver is not None and not isinstance(solver, str):
        raise OptionTypeError(f"solver is {solver!r}, expected a solver's name or a StepTable")
    name = solver or defaults.solver
    # what the plan knows fills the options of the same name that the solver has
    known = solver_options(name) if name in SOLVERS else {}
    none = Clip.none()  # a solver that never clips by itself does not clip because the plan does
    from_plan: dict[str, Any] = {"clip": default_clip(defaults), "variance": model.variance_type}
    chosen: dict[str, Any] = {option: value for option, value in from_plan.items() if known.get(option, none) != none}
    if name == defaults.solver:
        # levels or timesteps that are named leave nothing to spread
        named = "sigmas" in options or (steps is not None and not isinstance(steps, (int, np.integer)))
        chosen |= {k: v for k, v in defaults.options.items() if not (named and k in SPREAD_OPTIONS)}
        if steps is None and isinstance(options.get("sigmas", ""), str):
            steps = defaults.steps
    chosen |= options
    taken = [*known, *TIMESTEP_OPTIONS]
    unknown = sorted(set(chosen) - set(taken))
    if unknown and name in SOLVERS:
        raise OptionError(f"solver {name!r} has no option {unknown[0]!r}; it has {sorted(taken)}")
    return name, steps, chosen


def default_clip(defaults: DefaultsInfo) -> Clip:
    """The clip a plan asks for."""
    clip = defaults.clip
    if clip.kind == "dynamic":
        return Clip.dynamic(clip.ratio, float("inf") if clip.max_threshold is None else clip.max_threshold)
    return Clip.clamp(clip.limit) if clip.kind == "clamp" else Clip.none()
