"""ONNX files of any denoiser."""
