"""The engines that `build` can be asked for, and the options for TensorRT's."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from pysdk.engines.tensorrt.libraries import TITLES
from pysdk.errors import OptionError
from pysdk.plan.manifest import EngineInfo

ENGINES = ("auto", "native", "onnxruntime", "tensorrt")
"""What `build` can be asked for; "auto" is all for the CPU that can run the network."""

BATCH_SIZE = 16
"""Images in one network call by default."""

PRECISIONS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class TensorrtOptions:
    """How to build a TensorRT engine.

    Args:
        precision: the network body's: "float32", "float16" or "bfloat16".
        batch_profile: smallest, usual and largest number of images in one call; None for 1, then the plan's batch size
            for both others.
        compute_capabilities: the GPUs to build for, e.g. ("8.9",), with a library that needs no GPU to build; empty
            for all it can.
        strip_weights: leave the weights out of the engine, to be filled in from network.onnx when it is loaded.
        timing_cache: file that keeps measured tactics between builds; None for none.
        library: "tensorrt" or "tensorrt_rtx"; None for the first of them that is installed.

    Raises:
        OptionError: a value is none of these.
    """

    precision: str = "float32"
    batch_profile: tuple[int, int, int] | None = None
    compute_capabilities: tuple[str, ...] = ()
    strip_weights: bool = False
    timing_cache: Path | None = None
    library: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise OptionError(f"precision is {self.precision!r}, expected {', '.join(PRECISIONS)}")
        if self.library not in (None, *TITLES):
            raise OptionError(f"library is {self.library!r}, expected {' or '.join(TITLES)}")
        if self.batch_profile is not None:
            smallest, usual, largest = self.batch_profile
            if not 1 <= smallest <= usual <= largest <= 65_536:
                raise OptionError(
                    f"batch_profile is {smallest},{usual},{largest}, expected the smallest, usual and largest batch, "
                    "1 to 65536 and ascending"
                )
        for capability in self.compute_capabilities:
            if not re.fullmatch(r"[1-9][0-9]?\.[0-9]", capability):
                raise OptionError(f"compute_capabilities has {capability!r}, expected e.g. '8.9'")
        if self.strip_weights and self.precision != "float32":
            raise OptionError(
                f"strip_weights needs precision float32, not {self.precision}: the weights are put back from the "
                "plan's network.onnx, which is float32"
            )

    def profile(self, batch_size: int) -> tuple[int, int, int]:
        """Smallest, usual and largest batch. OptionError unless `batch_size` is among them."""
        smallest, usual, largest = self.batch_profile or (1, batch_size, batch_size)
        if not smallest <= batch_size <= largest:
            raise OptionError(f"batch_size is {batch_size}, expected {smallest} to {largest}, the batch_profile")
        return smallest, usual, largest


def check_engines(engine: str | Sequence[str], tensorrt: TensorrtOptions | None) -> tuple[str, ...]:
    """The engines wanted, each once. OptionError if there is no such engine, or options are for none of them."""
    wanted = (engine,) if isinstance(engine, str) else tuple(dict.fromkeys(engine))
    for name in wanted or ("",):
        if name not in ENGINES:
            raise OptionError(f"engine is {name!r}, expected {', '.join(ENGINES)}")
    if tensorrt is not None and "tensorrt" not in wanted:
        raise OptionError(f"engine is {', '.join(wanted)}, but there are options for tensorrt; add --engine tensorrt")
    return ("tensorrt", "onnxruntime") if wanted == ("tensorrt",) else wanted


def as_it_is(
    info: EngineInfo, engine: str | Sequence[str], tensorrt: TensorrtOptions | None, batch_size: int | None
) -> EngineInfo:
    """A finished TensorRT engine for calls of this size. OptionError if the options ask for something else."""
    wanted = {engine} if isinstance(engine, str) else set(engine)
    if not wanted <= {"auto", "tensorrt"}:
        raise OptionError(
            f"engine is {', '.join(sorted(wanted))}, but the source is a finished TensorRT engine, and no other can be "
            "made of it; leave --engine out"
        )
    if tensorrt is not None:
        raise OptionError("there are options for building a TensorRT engine, but the source is a finished one")
    size = info.batch_size if batch_size is None else batch_size
    smallest, largest = info.batches or (1, size)
    if not smallest <= size <= largest:
        raise OptionError(f"batch_size is {size}, expected {smallest} to {largest}, the batches of the engine")
    return replace(info, batch_size=size)


def tensorrt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which gets them as `tensorrt`, a TensorrtOptions or None if none is given."""

    @functools.wraps(command)
    def collect(*args: Any, **settings: Any) -> Any:
        given = {
            "precision": settings.pop("precision"),
            "batch_profile": _profile(settings.pop("batch_profile")),
            "compute_capabilities": settings.pop("compute_capability"),
            "strip_weights": settings.pop("strip_weights"),
            "timing_cache": settings.pop("timing_cache"),
            "library": settings.pop("tensorrt_library"),
        }
        chosen = {name: value for name, value in given.items() if value}
        return command(*args, tensorrt=TensorrtOptions(**chosen) if chosen else None, **settings)

    for option in (
        click.option("--tensorrt-library", type=click.Choice(list(TITLES)), help="TensorRT: which, if both are there."),
        click.option(
            "--timing-cache", type=click.Path(path_type=Path, dir_okay=False), help="TensorRT: tactics' file."
        ),
        click.option("--strip-weights", is_flag=True, help="TensorRT: engine without weights, refitted when loaded."),
        click.option("--compute-capability", multiple=True, metavar="8.9", help="TensorRT-RTX: build for these GPUs."),
        click.option("--batch-profile", metavar="MIN,USUAL,MAX", help="TensorRT: images per network call."),
        click.option("--precision", type=click.Choice(PRECISIONS), help="TensorRT: precision of the network's body."),
    ):
        collect = option(collect)
    return collect


def _profile(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(re.fullmatch("[0-9]{1,6}", part) for part in parts):
        raise OptionError(f"--batch-profile is {text!r}, expected three numbers such as 1,16,64")
    smallest, usual, largest = map(int, parts)
    return smallest, usual, largest
