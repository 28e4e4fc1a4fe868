"""The first steps of `pysdk build`: a source becomes a network and the manifest of its plan."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from pysdk import _native
from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.schedule import Schedule
from pysdk.distribution import install_extra, installed_version, require
from pysdk.errors import ExportError, MissingDependencyError
from pysdk.machine.interrupts import noted_interrupts
from pysdk.plan.manifest import DefaultsInfo, Manifest
from pysdk.request.guidance import resolve_guidance
from pysdk.request.solver_table import resolve_table

if TYPE_CHECKING:
    from pysdk.export.network import Network


@contextmanager
def step(name: str, verbose: bool) -> Iterator[None]:
    """One named step: its failure says which it was, `verbose` says what it took."""
    if sys.stderr.isatty():
        click.echo(f"{name} ...", err=True)
    start = time.perf_counter()
    with noted_interrupts() as noted:
        try:
            yield
        except Exception as error:
            noted.renew()  # torch and onnx turn Ctrl-C into errors of their own
            if isinstance(error, MissingDependencyError):
                raise  # its message is the command to run
            raise ExportError(f"{name}: {error}") from error
        noted.renew()  # or drop it
    if verbose:
        click.echo(f"{name}: {time.perf_counter() - start:.1f} s", err=True)


def check_defaults(manifest: Manifest, schedule: Schedule | EdmSchedule) -> None:
    """OptionError unless `Sampler.sample()` can run without arguments; checked before the slow steps."""
    resolve_table(manifest, schedule, None, None, {})
    resolve_guidance(manifest.model, manifest.defaults.guidance_scale, 1)


def prepare(
    source: str | os.PathLike[str],
    *,
    solver: str | None,
    steps: int | None,
    guidance_scale: float | None,
    verbose: bool,
    importer_options: Mapping[str, str] | None,
) -> tuple[Network, Manifest]:
    """The network of a source and the manifest of its plan, without engines; `build` documents arguments and errors."""
    for package in ("torch", "safetensors", "onnx", "onnxscript"):
        require(package, install_extra("export"))
    with step("load the checkpoint", verbose):
        from pysdk.export.importers import load_network

        network = load_network(os.fspath(source), dict(importer_options or {}))
        manifest = Manifest(
            pysdk_version=installed_version(),
            created_by="pysdk build",
            numerics_version=_native.NUMERICS_VERSION,
            model=network.model,
            schedule=network.schedule,
            defaults=override(network.defaults, solver=solver, steps=steps, guidance_scale=guidance_scale),
        )
    with step("check the defaults", verbose):
        check_defaults(manifest, network.make_schedule())
    return network, manifest


def override(
    defaults: DefaultsInfo, *, solver: str | None, steps: int | None, guidance_scale: float | None
) -> DefaultsInfo:
    """A source's defaults with those that the user gave instead; another solver drops the first one's options."""
    if solver is not None and solver != defaults.solver:
        defaults = replace(defaults, solver=solver, options={})
    return replace(
        defaults,
        steps=defaults.steps if steps is None else steps,
        guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
    )
