"""ONNX files made byte by byte."""
