"""Builds plans again from the network they keep, for another GPU, library, precision or batch."""

from __future__ import annotations

from pathlib import Path

from pysdk.errors import CheckpointError, EngineError
from pysdk.export.importers import no_options
from pysdk.export.lowering.onnx_files import OnnxFiles
from pysdk.export.network import Network
from pysdk.export.source_file import first_bytes
from pysdk.onnx_file.model import read
from pysdk.plan.manifest import MANIFEST_NAME, NETWORK_DATA_NAME, NETWORK_NAME
from pysdk.plan.reader import Plan

_ZIP = b"PK\x03\x04"
_NAME_AT = 30
"""Where a zip file has the name of its first member."""


def matches(source: str) -> bool:
    """Whether it is a zip file that begins as a plan does, or is named like one."""
    head = first_bytes(Path(source), _NAME_AT + len(MANIFEST_NAME))
    return head.startswith(_ZIP) and (Path(source).suffix == ".plan" or head[_NAME_AT:] == MANIFEST_NAME.encode())


def load(source: str, options: dict[str, str]) -> Network:
    """The plan's network with all that the plan says of it; its engines are left behind.

    The weights of a large network stay where they are in the file, which may be replaced meanwhile.

    Raises:
        PlanError: the plan is damaged.
        CheckpointError: it keeps no network, one with weights elsewhere, or a classifier, which would be lost.
        OptionError: there are options; a plan says all that is needed.
    """
    no_options("a plan", options)
    with Plan.open(source) as plan:
        manifest = plan.manifest
        if NETWORK_NAME not in manifest.members:
            raise CheckpointError(
                f"{source!r} keeps no {NETWORK_NAME}, as it was made of a finished engine; build from the ONNX file of "
                "that engine"
            )
        if manifest.classifier is not None:
            raise CheckpointError(
                f"{source!r} has the classifier {manifest.classifier.name!r}, which a new plan would not have; build "
                "from what the plan was built from, and add the classifier again with `pysdk add-classifier`"
            )
        graph = bytes(plan.member(NETWORK_NAME))
        weights = plan.member(NETWORK_DATA_NAME) if NETWORK_DATA_NAME in manifest.members else None
        try:
            read(graph, None if weights is None else len(weights))
        except EngineError as error:
            raise CheckpointError(f"plan {source!r} cannot be built again: {error}") from error
    files = OnnxFiles(graph, weights)
    return Network(None, manifest.model, manifest.schedule, manifest.defaults, onnx=files, previous=manifest.engines)
