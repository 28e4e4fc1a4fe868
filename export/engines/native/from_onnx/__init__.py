"""Reads an ONNX graph as a program, node by node."""
