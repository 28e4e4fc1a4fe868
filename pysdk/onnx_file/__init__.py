"""ONNX files of strangers: read completely by us before ONNX Runtime, or anything else, is given them.

Only one form of the bytes is taken, the one that protobuf itself writes (`wire.py`), of the messages in `schema.py`, so
that no other reader can find anything in a file that was not looked at here. What is looked at: `model.py` and
`tensors.py`.
"""
