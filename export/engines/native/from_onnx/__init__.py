"""Reading an ONNX graph as a program, one node after the other."""
