"""Lowering: torch modules and foreign graphs become the ONNX file of a plan."""
