"""TensorRT on NVIDIA GPUs: runs engines that `pysdk build --engine tensorrt` made."""

from pysdk.engines.tensorrt.engine import DEVICE, load, unusable

__all__ = ["DEVICE", "load", "unusable"]
