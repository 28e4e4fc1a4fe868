"""Parses texts of the command line into arguments of `Sampler`."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import click

from pysdk.errors import OptionError

if TYPE_CHECKING:
    from pysdk.diffusion.table import Clip

SET_HELP = "Solver option, e.g. eta=0.5; clip is none, dynamic or the limit of a clamp."

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class MemorySize(click.ParamType[int]):
    """Bytes, as a number or with a unit: 500MB, 2GiB, 1.5GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)", value)
        unit = None if found is None else _UNITS.get(found[2].upper())
        if found is None or unit is None:
            self.fail(f"{value!r} is no number of bytes; give one such as 2GiB, 500MB or 1073741824", param, ctx)
        return int(float(found[1]) * unit)


max_memory_option = click.option(
    "--max-memory", type=MemorySize(), help="Memory to take at most, e.g. 2GiB (default: four fifths of the machine's)."
)

deadline_option = click.option(
    "--deadline", type=float, help="Seconds after which this ends with an error (default: never)."
)

trust_option = click.option(
    "--trust", is_flag=True, help="Also run networks that could compute forever; for files whose maker you know."
)


def numbers(name: str, text: str | None) -> Any:
    """None, one number, or a list of them from "3" or "0,1,2"."""
    if text is None:
        return None
    values = [_number(part) for part in text.split(",")]
    if None in values:
        raise OptionError(f"{name} is {text!r}, expected a number or several with commas between")
    return values[0] if len(values) == 1 else values


def steps_of(steps: str | None, timesteps: str | None) -> Any:
    """The argument `steps` of `Sampler.sample`: a number, a respacing rule or a list of timesteps."""
    if timesteps is not None:
        if steps is not None:
            raise OptionError("--steps and --timesteps both say which steps to take; give one of them")
        listed = numbers("--timesteps", timesteps)
        return listed if isinstance(listed, list) else [listed]
    return int(steps) if steps and steps.isdecimal() and len(steps) <= 20 else steps  # longer ones are no rule either


def solver_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """{"eta": 0.5} from "eta=0.5"; values are read as JSON, else as words.

    Raises:
        OptionError: a text is no pair, or no solver has such an option.
    """
    from pysdk import solvers
    from pysdk.request.solver_table import TIMESTEP_OPTIONS

    known = {*TIMESTEP_OPTIONS, *(option for name in solvers.SOLVERS for option in solvers.solver_options(name))}
    options: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise OptionError(f"option is {pair!r}, expected NAME=VALUE such as eta=0.5")
        if name not in known:  # also what the command has an option of its own for
            raise OptionError(f"no solver has an option {name!r}; there are {sorted(known)}")
        if name == "clip":
            options[name] = _clip(value)
            continue
        try:
            options[name] = json.loads(value)
        except (ValueError, RecursionError):  # also of a number with too many digits
            options[name] = value
    return options


def _number(text: str) -> int | float | None:
    """A finite number, a whole one as int; None if it is none."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else None
    return None


def _clip(text: str) -> Clip:
    """The clip that a text names: `Clip.none()`, `Clip.dynamic()` or `Clip.clamp(limit)`."""
    from pysdk.diffusion.table import Clip

    limit = _number(text)
    if limit is not None:
        return Clip.clamp(limit)
    if text not in ("none", "dynamic"):
        raise OptionError(f"clip is {text!r}, expected none, dynamic or the limit of a clamp such as 1.0")
    return Clip.none() if text == "none" else Clip.dynamic()
