"""The native engine's compiler: an ONNX graph becomes a short list of fused operations.

program.py     what a program is
from_onnx/     reads the graph node by node and writes the operations
fusion.py      fuses many operations into few
weights.py     where in network.onnx, or in network.data, the weights are
float64.py     a program in float64
tactics.py     which convolution is computed how
builder.py     all of it, checked, as an engine of a plan
"""
