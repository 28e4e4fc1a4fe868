"""The ONNX Runtime engine of a plan: the ONNX file itself."""

from __future__ import annotations

from pysdk.export.engine_check import Candidate
from pysdk.export.onnx_files import OnnxFiles

from pysdk.engines import Engine, onnxruntime
from pysdk.manifest import NETWORK_NAME, EngineInfo, ModelInfo


def build(model: ModelInfo, onnx: OnnxFiles, batch_size: int) -> Candidate:
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
        return onnxruntime.load(model, info, memoryview(onnx.graph), threads, *onnx.beside.values())

    return Candidate("ONNX Runtime", info, load, {})
