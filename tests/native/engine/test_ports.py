"""Buffers and sizes of a network that do not fit its program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.engine.corpus import every_op
from kit.engine.programs import refused

from pysdk import _native


def ports(**changes: Any) -> dict[str, Any]:
    return {
        "network_input": np.zeros((2, 3, 4, 4), np.float32),
        "network_time": np.zeros(1, np.float32),
        "network_labels": np.zeros(2, np.int64),
        "network_output": np.zeros((2, 3, 4, 4), np.float32),
    } | changes


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"network_input": np.zeros((2, 3, 4, 5), np.float32)}, ValueError, "network_input has shape"),
        ({"network_input": np.zeros((0, 3, 4, 4), np.float32)}, ValueError, "network_labels has shape"),
        ({"network_input": np.zeros((2, 3, 4, 4))}, TypeError, "network_input has dtype float64"),
        ({"network_input": np.zeros((2, 3, 4, 4), ">f4")}, TypeError, "network_input has dtype >f4"),
        ({"network_input": np.zeros((2, 4, 4, 3), np.float32).transpose(0, 3, 1, 2)}, ValueError, "not C-contiguous"),
        ({"network_input": None}, TypeError, "network_input is a NoneType"),
        ({"network_time": np.zeros(2, np.float32)}, ValueError, "network_time has shape"),
        ({"network_labels": np.zeros(3, np.int64)}, ValueError, "network_labels has shape"),
        ({"network_labels": np.zeros(2, np.int32)}, TypeError, "network_labels has dtype int32"),
        ({"network_output": np.zeros((2, 6, 4, 4), np.float32)}, ValueError, "network_output has shape"),
        ({"network_output": np.zeros((1, 3, 4, 4), np.float32)}, ValueError, "network_output has shape"),
        ({"threads": 0}, ValueError, "threads is 0; it must be between 1 and 256"),
        ({"threads": 257}, ValueError, "threads is 257"),
    ],
)
def test_ports(changes: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        _native.Network(every_op().native(), **ports(**changes))


def test_ports_of_no_images_or_read_only():
    empty = {name: array[:0] for name, array in ports().items() if name != "network_time"}
    with pytest.raises(ValueError, match="the batch is empty"):
        _native.Network(every_op().native(), **ports(**empty))
    output = np.zeros((2, 3, 4, 4), np.float32)
    output.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        _native.Network(every_op().native(), **ports(network_output=output))


@pytest.mark.parametrize("source", [np.zeros(10, np.float32), np.zeros(100, np.uint8)[::2], np.zeros((2, 8), np.uint8)])
def test_a_source_that_is_no_plain_bytes(source: Any):
    program = every_op()
    program.source = source
    refused(program, "a source is not a contiguous buffer of bytes")


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 4), (2**17, 4, 4), (3, 2**15, 4)])
def test_an_image_of_a_wrong_size(shape: tuple[int, int, int]):
    with pytest.raises(ValueError, match=r"^the image is .*, expected 1 to"):
        _native.Program(shape=shape, out_channels=3, tensors=[], weights=[], ops=[], sources=[])


@pytest.mark.parametrize("out_channels", [0, 2**17, 2**40])
def test_an_output_of_a_wrong_size(out_channels: int):
    with pytest.raises(ValueError, match=r"^the output is "):
        _native.Program(shape=(1, 2, 2), out_channels=out_channels, tensors=[], weights=[], ops=[], sources=[])
