"""Solvers: pure functions (schedule, timesteps, options) -> StepTable, one file a family, and their registry.

With abar_t at the current timestep, abar_s at the next one visited (1 after the last), S = sqrt(abar) and
N = sqrt(1 - abar), a row reads the network's output f as an estimate of the data, clips it and steps (columns in
`docs/architecture.md`, every solver in `docs/solvers.md`):

    r = p x + q f        D = clip(r)        x' = a x + b D + h r + c1 d1 + c2 d2 + g y + s z

Importing this package imports every file in it; each registers its solvers with `@solver`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.noise_levels import make_levels
from pysdk.diffusion.prediction import PREDICTION_TYPES, read_output
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip, StepTable
from pysdk.diffusion.timesteps import Steps, make_timesteps
from pysdk.errors import OptionError
from pysdk.machine.float_state import standard_floats

__all__ = [
    "DEFAULT_CLIP",
    "LEVEL_OPTIONS",
    "PREDICTION_TYPES",
    "SOLVERS",
    "make_table",
    "read_output",
    "solver",
    "solver_options",
]

DEFAULT_CLIP = Clip.clamp(1.0)
"""The default of solvers, for data in [-1, 1]."""

LEVEL_OPTIONS: dict[str, Any] = {"sigmas": None, "sigma_min": None, "sigma_max": None, "rho": None}
"""Options of every solver in sigma, see `pysdk.diffusion.noise_levels.make_levels`."""

SOLVERS: dict[str, Callable[..., StepTable]] = {}
"""Every solver by name; `solver` adds to it."""

_Function = TypeVar("_Function", bound=Callable[..., StepTable])


def solver(function: _Function) -> _Function:
    """Register a function under its own name, of one of two kinds:

        function(schedule, timesteps, *, prediction_type, **options) -> StepTable   timesteps: int64 (K,), falling
        function(levels, **options) -> StepTable   written in sigma: `pysdk.diffusion.noise_levels`

    Its keyword-only parameters but `prediction_type` are the solver's options; all need defaults.
    """
    SOLVERS[function.__name__] = function
    return function


@standard_floats
def make_table(
    solver_name: str,
    schedule: Schedule | EdmSchedule,
    *,
    steps: Steps = None,
    spacing: str | None = None,
    steps_offset: int = 0,
    prediction_type: str = "epsilon",
    **options: Any,
) -> StepTable:
    """The table of the solver `solver_name`, e.g. `make_table("ddim", Schedule.linear(), steps=50, eta=0.5)`.

    Args:
        solver_name: one of `SOLVERS`.
        schedule: the forward process the network was trained on.
        steps, spacing, steps_offset: which timesteps are visited; see `pysdk.diffusion.timesteps.make_timesteps`.
        prediction_type: what the network's output is: "epsilon" (the noise), "sample" (x_0) or "v_prediction"; for a
            network of sigma, "edm" or "sample".
        options: the solver's; see its docstring. Solvers in sigma take sigmas, sigma_min, sigma_max and rho too;
            see `pysdk.diffusion.noise_levels.make_levels`.

    Raises:
        OptionError: unknown solver or option, or a value that cannot be used; nothing is adjusted to make it fit.
        OptionTypeError: an argument of the wrong type.
    """
    if solver_name not in SOLVERS:
        raise OptionError(f"solver is {solver_name!r}, expected one of {sorted(SOLVERS)}")
    function = SOLVERS[solver_name]
    known = solver_options(solver_name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise OptionError(f"solver {solver_name!r} has no option {unknown[0]!r}; it has {sorted(known)}")
    visits: dict[str, Any] = {"steps": steps, "spacing": spacing, "steps_offset": steps_offset}
    if _is_in_sigma(function):
        visits |= {name: options.pop(name) for name in LEVEL_OPTIONS if name in options}
        return function(make_levels(schedule, prediction_type=prediction_type, **visits), **options)
    if isinstance(schedule, EdmSchedule):
        usable = sorted(name for name, function in SOLVERS.items() if _is_in_sigma(function))
        raise OptionError(f"solver {solver_name!r} needs timesteps, this is a network of sigma; use one of {usable}")
    timesteps = make_timesteps(len(schedule), **visits)
    return function(schedule, timesteps, prediction_type=prediction_type, **options)


def solver_options(solver_name: str) -> dict[str, Any]:
    """The options of a solver and their defaults."""
    function = SOLVERS[solver_name]
    parameters = inspect.signature(function).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "prediction_type"}
    return {**own, **LEVEL_OPTIONS} if _is_in_sigma(function) else own


def _is_in_sigma(function: Callable[..., StepTable]) -> bool:
    return next(iter(inspect.signature(function).parameters)) == "levels"


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
