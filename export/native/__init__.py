"""The native engine's compiler: an ONNX graph becomes a short list of fused operations.

program.py     what a program is
views.py       tensors seen through Reshape, Transpose, Slice, ...: nothing is computed for them
values.py      what a name of the graph can stand for while it is read
lowering.py    reads the graph node by node; operators: layout.py, arithmetic.py, layers.py, attention.py, time.py
emitter.py     writes the operations
fusion.py      makes few operations of many
weights.py     where in network.onnx, or in network.data, the weights are
reference.py   a program in float64
tactics.py     which convolution is computed how
"""
