"""The ONNX Runtime engine of a plan: the ONNX file itself."""

from __future__ import annotations

import click

from pysdk.engines import onnxruntime
from pysdk.engines.contract import Engine
from pysdk.export.check import Candidate
from pysdk.export.lowering.onnx_files import OnnxFiles
from pysdk.onnx_file import operators
from pysdk.onnx_file.model import read
from pysdk.plan.manifest import NETWORK_NAME, EngineInfo, ModelInfo


def tell_of_trust(graph: bytes, what: str, weights: memoryview | None = None) -> None:
    """Say in one line if ONNX Runtime runs a network only for those who trust the plan."""
    reason = operators.unusual(read(graph, None if weights is None else len(weights)))
    if reason is not None:
        click.echo(f"on ONNX Runtime the plan needs trust=True (--trust): its {what} has {reason}", err=True)


def build_onnxruntime(model: ModelInfo, onnx: OnnxFiles, batch_size: int) -> Candidate:
    """ONNX Runtime on the plan's network.

    Args:
        model: what the plan says of the network.
        onnx: its files.
        batch_size: images of one call.
    """
    info = EngineInfo(
        kind="onnxruntime", member=NETWORK_NAME, data=tuple(onnx.beside), precision="float32", batch_size=batch_size
    )

    def load(threads: int) -> Engine:
        return onnxruntime.load(model, info, memoryview(onnx.graph), threads, *onnx.beside.values(), trust=True)

    tell_of_trust(onnx.graph, "network", onnx.weights)
    return Candidate("ONNX Runtime", info, load, {})
