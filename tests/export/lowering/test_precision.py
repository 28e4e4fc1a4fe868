"""Float16 and bfloat16 networks: what runs in which type, what it costs, and what is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from pysdk import Plan
from pysdk.errors import ExportError
from pysdk.export.engines.tensorrt import precision_error
from pysdk.export.engines.tensorrt.precision_error import Inputs, measure, session
from pysdk.export.lowering.precision import TYPES, Typed, in_precision
from pysdk.plan.manifest import EdmInfo, Manifest, ModelInfo, ScheduleInfo

PRECISIONS = ("float16", "bfloat16")
NUMPY = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
MODEL = ModelInfo(name="small", shape=(1, 4, 4), out_channels=1)
TEN = ScheduleInfo(name="linear", betas=(0.1,) * 10)


def read(path: Path) -> tuple[Manifest, bytes]:
    with Plan.open(path) as plan:
        return plan.manifest, bytes(plan.member("network.onnx"))


def graph(*nodes: onnx.NodeProto, **constants: Any) -> bytes:
    """A network of 1x4x4 images of these nodes; constants are float32, or int64 for integers."""
    batch = ("batch", 1, 4, 4)
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    made = helper.make_graph(
        list(nodes),
        "small",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, batch),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, (1,)),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, batch)],
        [
            numpy_helper.from_array(array.astype(np.int64 if array.dtype.kind == "i" else np.float32), name)
            for name, array in arrays.items()
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"the_{kind.lower()}", **attributes)


def weight(value: float) -> np.ndarray:
    return np.full((1, 1, 1, 1), value)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["conditional", "unconditional"])
def test_what_runs_in_which_type(request: pytest.FixtureRequest, name: str, precision: str) -> None:
    _, data = read(request.getfixturevalue(f"{name}_plan"))
    model = onnx.load_from_string(in_precision(data, precision))
    onnx.checker.check_model(model, full_check=True)  # types of every node, against its operator
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.input, *inferred.output]}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    low, full = TYPES[precision], TensorProto.FLOAT
    found: dict[str, set[int]] = {}
    for each in model.graph.node:
        found.setdefault(each.op_type, set()).add(types[each.input[0]])
    assert found["Conv"] == {low}
    assert found["InstanceNormalization"] == {full}
    assert found["Cos"] == found["Sin"] == found["Gemm"] == {full}  # the embedding of time, all of it
    if name == "conditional":
        assert found["Softmax"] == {full}
        assert found["MatMul"] == {low}
    assert types["x"] == types["t"] == types["output"] == full
    assert len(model.SerializeToString()) < 0.75 * len(data)  # weights of the body are there once, in two bytes


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_emulated_network_rounds_as_the_real_one(conditional_plan: Path, precision: str) -> None:
    """Against the typed file itself in onnx's reference implementation, which rounds after every operation as well."""
    manifest, data = read(conditional_plan)
    feed = Inputs(manifest.model, manifest.schedule)(500)
    (exact,) = session(data, 1)(feed)
    (real,) = ReferenceEvaluator(onnx.load_from_string(in_precision(data, precision))).run(None, feed)
    emulated, _ = session(Typed(data, precision, emulated=True).model.SerializeToString(), 1)(feed)
    epsilon = 2.0**-11 if precision == "float16" else 2.0**-8
    scale = epsilon * np.abs(exact).max()
    for found in (real, emulated):
        assert scale / 8 < np.abs(found - exact).max() < 12 * scale


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_layer_is_rounded_exactly(precision: str) -> None:
    """f(x) = 3 x, with x, the weight and the product each rounded once."""
    data = graph(node("Conv", ["x", "w"], "output"), w=weight(3.0001))
    feed = Inputs(MODEL, TEN)(1)
    kind = NUMPY[precision]
    expected = (feed["x"].astype(kind).astype(np.float32) * np.float32(kind(3.0001))).astype(kind).astype(np.float32)
    typed = Typed(data, precision, emulated=True)
    output, peaks = session(typed.model.SerializeToString(), 1)(feed)
    np.testing.assert_array_equal(output, expected)
    assert typed.layers == ["the_conv (Conv)"]
    assert peaks[0] == pytest.approx(np.abs(expected).max(), rel=1e-2)
    real = ReferenceEvaluator(onnx.load_from_string(in_precision(data, precision))).run(None, feed)[0]
    np.testing.assert_array_equal(real, expected)


def test_elementwise_operations_follow_what_they_read() -> None:
    data = graph(
        node("Softmax", ["x"], "soft", axis=3),
        node("Mul", ["soft", "two"], "double"),  # after a float32 operation: float32
        node("Conv", ["double", "w"], "body"),
        node("Add", ["body", "t"], "output"),  # in the body; t is cast down to it
        two=2.0,
        w=weight(1.0),
    )
    typed = Typed(data, "float16")
    made = {each.name: each for each in typed.model.graph.node}
    assert list(made["the_mul"].input) == ["soft", "two"]
    assert list(made["the_conv"].input) == ["double/float16", "w/float16"]
    assert list(made["the_add"].input) == ["body", "t/float16"]
    assert [each.name for each in typed.model.graph.node if each.op_type == "Cast"] == [
        "cast/double/float16",
        "cast/t/float16",
        "cast/output",
    ]
    assert typed.counts == (2, 2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_error_is_measured_at_every_timestep(unconditional_plan: Path, precision: str) -> None:
    manifest, data = read(unconditional_plan)
    found = measure(manifest.model, manifest.schedule, data, precision, 60.0)
    np.testing.assert_array_equal(found.times, np.arange(100))
    assert (found.errors > 0).all()
    assert found.max_abs_error == found.errors.max() < {"float16": 4e-3, "bfloat16": 3e-2}[precision] * found.max_abs
    assert re.search(rf"^{precision} body .* at 100 timesteps: max error .*; largest value inside ", found.summary())
    assert found.table().count("\n") == 19


def test_the_error_is_that_of_float16(unconditional_plan: Path) -> None:
    """What is said of one timestep is what one gets there."""
    manifest, data = read(unconditional_plan)
    found = measure(manifest.model, manifest.schedule, data, "float16", 0.0)  # the first and the last
    typed = Typed(data, "float16", emulated=True)
    feed = Inputs(manifest.model, manifest.schedule)(99)
    difference = session(typed.model.SerializeToString(), 1)(feed)[0] - session(data, 1)(feed)[0]
    assert list(found.times) == [0, 99]
    assert found.errors[1] == np.abs(difference).max()


# What is refused.


def growing() -> bytes:
    """f(x, t) = 0.001 (1000 t (2 x)), whose inner product leaves the range of float16 as t grows."""
    return graph(
        node("Conv", ["x", "w"], "twice"),
        node("Mul", ["t", "thousand"], "factor"),
        helper.make_node("Mul", ["twice", "factor"], ["large"], name="scaled"),
        helper.make_node("Mul", ["large", "small"], ["output"], name="back"),
        w=weight(2.0),
        thousand=1000.0,
        small=0.001,
    )


def test_an_overflow_is_named_with_layer_and_timestep() -> None:
    schedule = ScheduleInfo(name="linear", betas=(0.1,) * 60)
    with pytest.raises(ExportError, match=r"float16 overflows in scaled \(Mul\) at t = ") as caught:
        measure(MODEL, schedule, growing(), "float16", 60.0)
    assert "the largest number is 65504; build with --precision bfloat16" in str(caught.value)
    found = measure(MODEL, schedule, growing(), "bfloat16", 60.0)
    assert found.layer == "scaled (Mul)"
    assert found.peak > 65504
    # the timestep named is the first at which it happens
    named = int(re.search(r"at t = (\d+)", str(caught.value))[1])
    assert measure(MODEL, ScheduleInfo(name="linear", betas=(0.1,) * named), growing(), "float16", 60.0).peak <= 65504


def test_an_overflow_that_the_output_does_not_show() -> None:
    """sigmoid(infinity) is 1: the output is finite and close, the network still left its range."""
    data = graph(
        node("Conv", ["x", "w"], "large"),
        node("Mul", ["large", "large"], "square"),
        node("Sigmoid", ["square"], "output"),
        w=weight(1000.0),
    )
    with pytest.raises(ExportError, match=r"float16 overflows in the_mul \(Mul\) at t = 0: its output reaches"):
        measure(MODEL, TEN, data, "float16", 1.0)


@pytest.mark.parametrize(("value", "precision"), [(1e5, "float16"), (3.4e38, "bfloat16")])
def test_a_weight_that_does_not_fit(value: float, precision: str) -> None:
    data = graph(node("Conv", ["x", "kernel"], "output"), kernel=weight(value))
    with pytest.raises(ExportError, match=rf"weight 'kernel' has values up to .*, more than {precision} holds"):
        in_precision(data, precision)


def test_a_network_that_loses_its_meaning() -> None:
    """(x + 1000) - 1000 in bfloat16, whose numbers around 1000 are 4 apart."""
    data = graph(
        node("Conv", ["x", "w"], "body"),
        node("Add", ["body", "thousand"], "far"),
        node("Sub", ["far", "thousand"], "output"),
        w=weight(1.0),
        thousand=1000.0,
    )
    with pytest.raises(ExportError, match=r"the bfloat16 network is .* away from float32 at t = .*--precision float32"):
        measure(MODEL, TEN, data, "bfloat16", 1.0)


def test_graphs_inside_a_graph() -> None:
    def branch(name: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 1, 4, 4))
        return helper.make_graph([helper.make_node("Identity", ["x"], [name])], name, [], [output])

    data = graph(
        node("Greater", ["t", "zero"], "late"),
        node("Squeeze", ["late"], "scalar"),
        node("If", ["scalar"], "output", then_branch=branch("yes"), else_branch=branch("no")),
        zero=0.0,
    )
    with pytest.raises(ExportError, match=r"node 'the_if' \(If\) holds a graph of its own"):
        in_precision(data, "float16")


def test_a_network_of_sigma_is_asked_at_its_levels() -> None:
    edm = ScheduleInfo(name="edm", edm=EdmInfo(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5))
    inputs = Inputs(ModelInfo(name="f", shape=(1, 4, 4), out_channels=1, prediction_type="edm"), edm)
    assert [inputs.times[0], inputs.times[-1]] == pytest.approx([np.log(0.002) / 4, np.log(80) / 4])
    inputs = Inputs(ModelInfo(name="d", shape=(1, 4, 4), out_channels=1, prediction_type="sample"), edm)
    assert [inputs.times[0], inputs.times[-1]] == pytest.approx([0.002, 80.0])
    assert inputs(49)["x"].std() == pytest.approx(80, rel=0.5)
    data = graph(node("Conv", ["x", "w"], "output"), w=weight(0.5))
    assert len(measure(inputs.model, edm, data, "float16", 60.0).times) == precision_error._LEVELS
