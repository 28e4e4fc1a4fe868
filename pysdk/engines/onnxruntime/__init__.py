"""ONNX Runtime on the CPU: runs any ONNX network, bound to the chain's own buffers."""

from pysdk.engines.onnxruntime.engine import cost, load, unusable

__all__ = ["cost", "load", "unusable"]
