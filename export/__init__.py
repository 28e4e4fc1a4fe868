"""Lowering of trained networks to plans; installed as `pysdk.export`. Needs the `export` extra (torch, onnx)."""
