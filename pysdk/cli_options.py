"""Texts of the command line as arguments of `Sampler`."""

from __future__ import annotations

import json
from typing import Any

from pysdk.errors import OptionError


def numbers(name: str, text: str | None) -> Any:
    """None, one number, or a list of them from "3" or "0,1,2"."""
    if text is None:
        return None
    try:
        values = [float(part) if "." in part else int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"{name} is {text!r}, expected a number or several with commas between") from None
    return values[0] if len(values) == 1 else values


def steps_of(steps: str | None, timesteps: str | None) -> Any:
    """The `steps` argument of `Sampler.sample`: a number, a respacing rule or a list of timesteps."""
    if timesteps is not None:
        if steps is not None:
            raise OptionError("--steps and --timesteps both say which steps to take; give one of them")
        listed = numbers("--timesteps", timesteps)
        return listed if isinstance(listed, list) else [listed]
    return int(steps) if steps and steps.isdecimal() and len(steps) <= 20 else steps  # longer ones are no rule either


def solver_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """{"eta": 0.5} from "eta=0.5"; values are read as JSON, else as words."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise OptionError(f"option is {pair!r}, expected NAME=VALUE such as eta=0.5")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options
