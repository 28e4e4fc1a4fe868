"""Importers: one file or folder each. Each turns one kind of source into a `Network`.

An importer's module has two functions:

    def matches(source: str) -> bool
        Whether it can read this path or id; cheap, opens no more than it must.
    def load(source: str, options: dict[str, str]) -> Network
        The network. Options are the command line's unknown ones, e.g. {"num_channels": "128"}; every one is used or
        refused. Raises CheckpointError or OptionError.
"""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from pysdk.errors import CheckpointError, OptionError
from pysdk.export.network import Network

IMPORTERS = {
    "diffusers": "diffusers.model",
    "onnx": "onnx.model",
    "openai": "openai.model",
    "plan": "plan_file",
    "pysdk": "pysdk_checkpoint",
    "trtexec": "trtexec.model",
}
"""The modules in this folder by the kind of source, in the order in which they are asked."""


class Importer(Protocol):
    """What the module of an importer offers."""

    def matches(self, source: str) -> bool:
        """Whether it can read the source."""

    def load(self, source: str, options: dict[str, str]) -> Network:
        """The network."""


def load_network(source: str, options: dict[str, str]) -> Network:
    """The network of a source, by the first importer that can read it.

    Raises:
        CheckpointError: no importer can, or the one that can finds it damaged.
        OptionError: an option the importer does not have.
    """
    for name in IMPORTERS.values():
        importer = cast(Importer, importlib.import_module(f"{__name__}.{name}"))
        if importer.matches(source):
            return importer.load(source, options)
    raise CheckpointError(
        f"{source!r} is nothing that can be built: expected a folder written by `pysdk train`, with model.json in it, "
        f"or what another importer reads ({', '.join(IMPORTERS)}; see docs/import)"
    )


def no_options(what: str, options: dict[str, str]) -> None:
    """OptionError if there are any."""
    if options:
        raise OptionError(f"{what} takes no option {next(iter(options))!r}; leave it out")
