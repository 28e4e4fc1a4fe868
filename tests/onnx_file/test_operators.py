"""Networks that could compute forever: refused at once, unless they are trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from kit.attacks.forged import PLAIN
from onnx import TensorProto, helper

from pysdk import Plan, Sampler
from pysdk.cli.commands import pysdk
from pysdk.engines.onnxruntime.engine import open_session
from pysdk.errors import CheckpointError, EngineError, MemoryLimitError, OptionTypeError
from pysdk.evaluation.features import OnnxFeatures
from pysdk.export.lowering import surgery
from pysdk.machine.memory import Budget
from pysdk.onnx_file import operators
from pysdk.onnx_file.model import read
from pysdk.plan.manifest import NETWORK_NAME
from pysdk.plan.writer import write_plan

SHAPE = ["batch", 1, 2, 2]


def value(name: str, kind: int = TensorProto.FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, number: Any, kind: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, kind, [], [number]))


def network(*nodes: onnx.NodeProto, functions: Any = (), domains: Any = ()) -> bytes:
    """A model from x and t to output."""
    ports = [value("x", shape=SHAPE), value("t", shape=[1])], [value("output", shape=SHAPE)]
    imports = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(nodes, "g", *ports)
    made = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)
    return bytes(made.SerializeToString())


def nested(depth: int) -> onnx.ModelProto:
    """Functions each of which calls the next twice: 2^depth nodes."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("d", 1)]
    functions = [helper.make_function("d", "f0", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], imports)]
    for level in range(1, depth + 1):
        calls = [helper.make_node(f"f{level - 1}", [a], [b], domain="d") for a, b in ("am", "mb")]
        functions.append(helper.make_function("d", f"f{level}", ["a"], ["b"], calls, imports))
    call = helper.make_node(f"f{depth}", ["x"], ["output"], domain="d")
    return onnx.load_from_string(network(call, functions=functions, domains=["d"]))


LOOP = helper.make_graph(
    [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["v"], ["w"])],
    "body",
    [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("v")],
    [value("on", TensorProto.BOOL, []), value("w")],
)
SCAN = helper.make_graph(
    [helper.make_node("Identity", ["v"], ["w"]), helper.make_node("Neg", ["a"], ["b"])],
    "body",
    [value("v"), value("a")],
    [value("w"), value("b")],
)
BRANCHES = {
    name: helper.make_graph([helper.make_node(operator, ["x"], [operator])], name, [], [value(operator)])
    for name, operator in (("then_branch", "Neg"), ("else_branch", "Abs"))
}
IF = network(constant("yes", 1, TensorProto.BOOL), helper.make_node("If", ["yes"], ["output"], **BRANCHES))

NEVER_ENDING = {
    "Loop": network(
        constant("n", 2**63 - 1, TensorProto.INT64),
        constant("yes", 1, TensorProto.BOOL),
        helper.make_node("Loop", ["n", "yes", "x"], ["output"], body=LOOP),
    ),
    "Scan": network(helper.make_node("Scan", ["t", "x"], ["last", "output"], body=SCAN, num_scan_inputs=1)),
    "If": IF,
    "a function of its own, 'f0'": nested(25).SerializeToString(),
    "'Gelu' of 'com.microsoft'": network(
        helper.make_node("Gelu", ["x"], ["output"], domain="com.microsoft"), domains=["com.microsoft"]
    ),
    "'RandomNormalLike'": network(helper.make_node("RandomNormalLike", ["x"], ["output"])),
    "100,000 nodes, more than 50,000": network(
        helper.make_node("Neg", ["x"], ["output"]), *(helper.make_node("Neg", ["x"], [f"y{i}"]) for i in range(99_999))
    ),
    "a graph in the attribute": network(helper.make_node("Neg", ["x"], ["output"], **BRANCHES)),
}


@pytest.mark.parametrize("what", NEVER_ENDING)
def test_refused(what: str) -> None:
    with pytest.raises(EngineError, match=r"which can compute forever; give trust=True \(--trust\) if you") as caught:
        open_session(NEVER_ENDING[what], 1)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trusted() -> None:
    session, _ = open_session(IF, 1, trust=True)
    x = np.ones((2, 1, 2, 2), np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x, "t": np.zeros(1, np.float32)})[0], -x)


def test_trust_lifts_nothing_else() -> None:
    with pytest.raises(EngineError, match=r"not an ONNX file as protobuf writes it"):
        open_session(IF + b"\x00", 1, trust=True)
    with pytest.raises(MemoryLimitError):
        open_session(IF, 1, trust=True, budget=Budget(10))


def test_every_operator_is_one_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert known >= operators.OPERATORS
    assert not operators.OPERATORS & {"Loop", "If", "Scan", "SequenceMap"}


@pytest.fixture
def branching(conditional_plan: Path, tmp_path: Path) -> Path:
    """The plan, its network behind an If that both engines are given, the native one as it was."""
    with Plan.open(conditional_plan) as plan:
        model = onnx.load_from_string(bytes(plan.member(NETWORK_NAME)))
        (output,) = (node for node in model.graph.node if "output" in node.output)
        output.output[list(output.output).index("output")] = "before"
        branches = {
            name: helper.make_graph([helper.make_node("Identity", ["before"], [name])], name, [], [value(name)])
            for name in ("then_branch", "else_branch")
        }
        yes = constant("really", 1, TensorProto.BOOL)
        model.graph.node.extend([yes, helper.make_node("If", ["really"], ["output"], **branches)])
        members = {name: plan.member(name) for name in plan.manifest.members}
        write_plan(tmp_path / "if.plan", plan.manifest, members | {NETWORK_NAME: model.SerializeToString()})
    return tmp_path / "if.plan"


def test_a_plan(branching: Path, conditional_plan: Path) -> None:
    with pytest.raises(EngineError, match="the network has the operator 'If'"):
        Sampler(branching, engine="onnxruntime")
    with (
        Sampler(branching, engine="onnxruntime", trust=True) as sampler,
        Sampler(conditional_plan, engine="onnxruntime") as plain,
    ):
        np.testing.assert_array_equal(sampler.sample(1, steps=2), plain.sample(1, steps=2))
    with pytest.raises(OptionTypeError, match="trust is 1, expected True or False"):
        Sampler(branching, trust=1)  # type: ignore[arg-type]


def test_the_command(branching: Path, tmp_path: Path) -> None:
    command = ["sample", str(branching), "-n", "1", "--steps", "2", "--engine", "onnxruntime"]
    command += ["-o", str(tmp_path / "x.npz")]
    refused = CliRunner().invoke(pysdk, command)
    assert refused.exit_code != 0
    assert "--trust" in str(refused.exception) + refused.output
    assert CliRunner().invoke(pysdk, [*command, "--trust"]).exit_code == 0


@pytest.mark.parametrize(
    "command", ["sample", "edit", "inpaint", "interpolate", "likelihood", "compression", "evaluate"]
)
def test_every_command_that_draws_has_it(command: str) -> None:
    assert "--trust" in CliRunner().invoke(pysdk, [command, "--help"]).output


def test_features(tmp_path: Path) -> None:
    branches = {
        name: helper.make_graph([helper.make_node("Flatten", ["x"], [name])], name, [], [value(name)])
        for name in ("then_branch", "else_branch")
    }
    nodes = [constant("yes", 1, TensorProto.BOOL), helper.make_node("If", ["yes"], ["features"], **branches)]
    graph = helper.make_graph(nodes, "g", [value("x", shape=SHAPE)], [value("features", shape=["batch", 4])])
    path = tmp_path / "features.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    with pytest.raises(EngineError, match=r"features\.onnx: the network has the operator 'If'.*who made it$"):
        OnnxFeatures(path)
    with pytest.raises(MemoryLimitError):
        OnnxFeatures(path, trust=True, max_memory=10)
    answer = OnnxFeatures(path, trust=True)(np.full((2, 2, 2, 1), 255, np.uint8))
    np.testing.assert_array_equal(answer, np.ones((2, 4), np.float32))


def test_importers_inline(tmp_path: Path) -> None:
    onnx.save(nested(3), tmp_path / "a.onnx")
    model, _ = surgery.read_model(tmp_path / "a.onnx")
    assert not model.functions
    assert [node.op_type for node in model.graph.node if node.op_type != "Identity"] == ["Neg"] * 8
    assert operators.unusual(read(model.SerializeToString())) is None
    onnx.save(nested(25), tmp_path / "b.onnx")
    with pytest.raises(CheckpointError, match=r"the network's functions call each other: without them it has 1[0-9,]+"):
        surgery.read_model(tmp_path / "b.onnx")


def test_functions_that_call_themselves() -> None:
    model = nested(1)
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "f1", "d"
    with pytest.raises(CheckpointError, match="inf nodes"):
        surgery.inlined(model)


def test_what_is_plain_needs_no_trust() -> None:
    assert operators.unusual(read(PLAIN)) is None
