"""Weights of a program: found in network.onnx where they are, packed beside it where they are not."""

import numpy as np
import onnx
import pytest
from kit.compiler.graphs import graph, model_info
from onnx import numpy_helper

from pysdk.errors import EngineError
from pysdk.export.engines.native.from_onnx.lowering import lower
from pysdk.export.engines.native.program import Input, NotCovered, Program, Tensor
from pysdk.export.engines.native.weights import pack, raw_floats, unpack
from pysdk.onnx_file.model import read

RNG = np.random.default_rng(0)
DATA = graph(
    "h = Conv <pads = [1, 1, 1, 1]> (x, w, b) a = Transpose <perm = [0, 2, 3, 1]> (h) m = MatMul (a, m_w) "
    "o = Transpose <perm = [0, 3, 1, 2]> (m) output = Conv (o, v)",
    w=RNG.standard_normal((8, 2, 3, 3)),
    b=RNG.standard_normal(8),
    m_w=RNG.standard_normal((8, 6)),
    v=RNG.standard_normal((8, 6, 1, 1)),
    twin=RNG.standard_normal((8, 6, 1, 1)),
    whole=np.arange(8),
)
MODEL = model_info((2, 4, 4), 8)


def test_initializers_are_found_where_onnx_has_them():
    model = onnx.load_from_string(DATA)
    expected = [tensor.raw_data for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert [DATA[offset : offset + size] for offset, size in raw_floats(read(DATA))] == expected
    assert len(expected) == 5


def test_weights_that_the_file_has_are_not_copied():
    program = lower(DATA, MODEL)
    head, constants = pack(program, DATA)
    assert constants == bytes(64)  # nothing
    found = unpack(head, DATA, constants)
    assert (found.tensors, found.ops) == (program.tensors, program.ops)
    for index in range(len(program.weights)):
        np.testing.assert_array_equal(found.weight(index), program.weight(index))
    assert b'"transposed":true' in head


def test_other_weights_are_packed_once_and_aligned():
    pieces = [RNG.standard_normal(size).astype(np.float32) for size in (3, 5, 17)]
    program = Program([Tensor(1, 1, 1)], [(pieces[0], pieces[1]), (pieces[2],), (pieces[1],)], [Input(out=0)])
    head, constants = pack(program, DATA)
    assert len(constants) == 64 + 64 + 128
    found = unpack(head, DATA, constants)
    for index, expected in enumerate([np.concatenate(pieces[:2]), pieces[2], pieces[1]]):
        np.testing.assert_array_equal(found.weight(index), expected)


def test_typed_data_is_no_raw_data():
    """A tensor whose values are protobuf numbers has no bytes to refer to."""
    model = onnx.load_from_string(DATA)
    tensor = model.graph.initializer[0]
    typed = onnx.helper.make_tensor(tensor.name, tensor.data_type, tensor.dims, numpy_helper.to_array(tensor).ravel())
    assert not typed.raw_data
    tensor.CopyFrom(typed)
    data = model.SerializeToString()
    program = lower(data, MODEL)
    head, constants = pack(program, data)
    assert len(constants) == 576
    np.testing.assert_array_equal(unpack(head, data, constants).weight(0), program.weight(0))


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_file_that_ends_early_is_refused(cut):
    with pytest.raises(EngineError, match="or damaged"):
        read(DATA[:-cut])
    with pytest.raises(NotCovered):
        lower(DATA[:-cut], MODEL)
