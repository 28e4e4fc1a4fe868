"""What the networks of a plan take, and whether they need trust: `Plan.describe`, `pysdk info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from kit.tiny_networks import toy_engine, write_toy_plan
from onnx import TensorProto, helper

from pysdk import Plan
from pysdk.cli.commands import pysdk
from pysdk.engines.native import Head, TensorInfo
from pysdk.machine.memory import default_limit
from pysdk.plan.manifest import ClassifierInfo
from pysdk.plan.writer import write_plan

SHAPE = ["batch", 1, 2, 2]


def info(path: Path) -> tuple[dict[str, Any], str]:
    """What `pysdk info` prints, as JSON and as text."""
    printed = [CliRunner().invoke(pysdk, ["info", str(path), *more]) for more in (["--json"], [])]
    assert [result.exit_code for result in printed] == [0, 0]
    return json.loads(printed[0].output), printed[1].output


def branch() -> bytes:
    """x or x, by an If."""
    outputs = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("a", "b")}
    branches = {
        f"{which}_branch": helper.make_graph([helper.make_node("Neg", ["x"], [name])], name, [], [outputs[name]])
        for which, name in (("then", "a"), ("else", "b"))
    }
    yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [1]))
    nodes = [yes, helper.make_node("If", ["yes"], ["output"], **branches)]
    inputs = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", SHAPE), ("t", [1]))]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("output", 1, SHAPE)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def test_both_engines(conditional_plan: Path) -> None:
    described, text = info(conditional_plan)
    native, runtime = described["costs"]
    with Plan.open(conditional_plan) as plan:
        assert plan.describe()["costs"] == described["costs"]
        assert runtime["weights"] == plan.manifest.members["network.onnx"].size
    assert [cost["engine"] for cost in (native, runtime)] == ["native", "onnxruntime"]
    assert native["multiplications"] > 1e5
    assert min(native["weights"], native["network"]) > 1000
    assert (runtime["multiplications"], runtime["network"]) == (None, None)
    for cost in (native, runtime):
        assert (cost["runs"], cost["batch_size"], cost["needs_trust"], cost["refused"]) == ("network", 4, False, None)
    assert f"onnxruntime cost: {runtime['weights']:,} bytes of weights; its operations and the memory" in text
    assert f"{native['weights']:,} bytes of weights and {native['network']:,} at batch 4\n" in text
    assert described["max_memory"] == default_limit()
    assert f"max memory: {default_limit():,} bytes" in text
    assert "--trust" not in text


def test_operators_that_need_trust(tmp_path: Path) -> None:
    described, text = info(write_toy_plan(tmp_path / "a.plan", branch()))
    (cost,) = described["costs"]
    assert cost["needs_trust"] is True
    assert cost["refused"] == "it has the operator 'If'"
    assert cost["weights"] == len(branch())
    assert "not counted; needs --trust: it has the operator 'If'\n" in text


def test_a_classifier_that_needs_trust(tmp_path: Path) -> None:
    with Plan.open(write_toy_plan(tmp_path / "a.plan", num_classes=3)) as plan:
        members = {name: plan.member(name) for name in plan.manifest.members}
        classifier = ClassifierInfo(name="c", num_classes=3)
        manifest = msgspec.structs.replace(plan.manifest, classifier=classifier)
        write_plan(tmp_path / "b.plan", manifest, {**members, "classifier.onnx": branch()})
    described, text = info(tmp_path / "b.plan")
    assert [(cost["runs"], cost["needs_trust"]) for cost in described["costs"]] == [
        ("network", False),
        ("classifier", True),
    ]
    assert "classifier cost: " in text


def test_a_native_step_out_of_proportion(tmp_path: Path) -> None:
    """Attention over 512 x 512 pixels in a file of a few numbers."""
    side = 512
    attention = {"op": "attention", "out": 1, "heads": 1, "head_channels": 3, "scale": 1.0}
    head = Head(
        version=1,
        tensors=tuple(TensorInfo(3, side, side, shared=False) for _ in range(2)),
        weights=(),
        ops=(
            {"op": "input", "out": 0},
            attention | dict.fromkeys("qkv", (0, 0, 3)),
            {"op": "output", "x": 1},
        ),
    )
    with Plan.open(write_toy_plan(tmp_path / "a.plan", shape=(3, side, side), out_channels=3)) as plan:
        engines = (toy_engine(kind="native", member="native.json"),)
        manifest = msgspec.structs.replace(plan.manifest, engines=engines)
        members = {"network.onnx": plan.member("network.onnx"), "native.json": msgspec.json.encode(head)}
        write_plan(tmp_path / "b.plan", manifest, members)
    described, text = info(tmp_path / "b.plan")
    (cost,) = described["costs"]
    assert cost["needs_trust"] is True
    assert cost["multiplications"] > 1e10
    assert "needs --trust: it takes 2.2e+12 multiplications for an image and step, more than the 2.75e+11" in text


@pytest.mark.parametrize("network", [b"\0", b"hello", b"\x08\x08"])
def test_a_network_that_is_none(tmp_path: Path, network: bytes) -> None:
    described, text = info(write_toy_plan(tmp_path / "a.plan", network))
    (cost,) = described["costs"]
    assert (cost["weights"], cost["needs_trust"]) == (None, False)
    assert cost["refused"]
    assert "onnxruntime cost: none (the network " in text


def test_a_damaged_network_is_told(tmp_path: Path) -> None:
    path = write_toy_plan(tmp_path / "a.plan")
    data = path.read_bytes()
    at = data.index(b"multiplication")
    path.write_bytes(data[:at] + b"M" + data[at + 1 :])
    assert "is damaged or edited" in info(path)[0]["costs"][0]["refused"]
