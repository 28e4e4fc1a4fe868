"""ONNX files of strangers: read completely here before ONNX Runtime, or anything else, gets them.

Only one form of the bytes is accepted, the one that protobuf itself writes (`wire.py`), with the messages of
`schema.py`, so that no other reader finds anything that was not seen here. `model.py` and `tensors.py` check the rest.
"""
