"""Memory is counted before it is taken: what the system gives, the budget, and what a sampler does with it."""

from pathlib import Path

import click
import numpy as np
import pytest

from pysdk import Plan, Sampler, _native
from pysdk.cli.commands import pysdk
from pysdk.cli.parsing import MemorySize
from pysdk.engines import native
from pysdk.engines.onnxruntime.arena import foldable
from pysdk.engines.onnxruntime.engine import open_session
from pysdk.errors import EngineError, MemoryLimitError, OptionError, OptionTypeError
from pysdk.machine.memory import SHARE, Budget, default_limit, given
from pysdk.onnx_file.model import read
from pysdk.onnx_file.wire import Message

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def group(root: Path, line: str, **files: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_control_groups_give(tmp_path: Path) -> None:
    group(tmp_path / "none", "0::/\n")
    machine = given(tmp_path / "none")
    assert 2**26 < machine < 2**50
    group(tmp_path / "v2", "0::/a/b\n", a__b__memory_DOT_max="max\n", a__memory_DOT_max="9999\n")
    assert given(tmp_path / "v2") == 9999
    group(tmp_path / "v1", "3:cpu:/\n4:memory:/a\n", memory__memory_DOT_limit_in_bytes="8888\n")
    assert given(tmp_path / "v1") == 8888
    assert given(tmp_path / "there is no such folder") == machine
    assert default_limit() == int(given() * SHARE)


def test_a_budget() -> None:
    budget = Budget(100)
    give_back = budget.take(60, "a needs")
    with pytest.raises(
        MemoryLimitError, match=r"^b needs 50 bytes of memory, and 40 are left of the limit of 100; give"
    ):
        budget.take(50, "b needs")
    with pytest.raises(MemoryError):
        budget.check(41, "c needs")
    give_back()
    assert budget.left == 100


@pytest.mark.parametrize("wrong", [0, -1, 2**63, True])
def test_a_limit_that_is_none(conditional_plan: Path, wrong: int) -> None:
    with pytest.raises(OptionError, match="max_memory is"):
        Sampler(conditional_plan, max_memory=wrong)
    with pytest.raises(OptionTypeError, match="max_memory is '2GiB'"):
        Sampler(conditional_plan, max_memory="2GiB")  # type: ignore[arg-type]


def test_a_device_has_no_such_limit(conditional_plan: Path) -> None:
    with pytest.raises(OptionError, match="max_memory limits the memory of the CPU's engines"):
        Sampler(conditional_plan, device="cuda", max_memory=2**30)


def test_a_plan_that_does_not_fit(conditional_plan: Path) -> None:
    with pytest.raises(
        MemoryLimitError, match=r"^loading the native network needs [0-9,]+ bytes of memory, and 1,000 "
    ):
        Sampler(conditional_plan, engine="native", max_memory=1000)
    with pytest.raises(MemoryLimitError, match=r"^the weights of the network need [0-9,]+ bytes of memory, and 1,000 "):
        Sampler(conditional_plan, engine="onnxruntime", max_memory=1000)


def test_a_batch_that_does_not_fit(conditional_plan: Path, conditional: Sampler) -> None:
    with Sampler(conditional_plan, engine="native", threads=1, batch_size=1) as sampler:
        sampler.sample(1, steps=2)
        enough = sampler.info["running"]["memory"]
    with Sampler(conditional_plan, engine="native", threads=1, batch_size=512, max_memory=2 * enough) as sampler:
        loaded = sampler.info["running"]["memory"]
        expected = conditional.sample(1, steps=2)
        np.testing.assert_array_equal(sampler.sample(1, steps=2), expected)
        with pytest.raises(MemoryLimitError, match=r"^a chain of 512 images needs .* give a smaller batch_size"):
            sampler.sample(512, steps=2)
        assert sampler.info["running"]["memory"] == loaded  # the idle chain was let go for it
        with pytest.raises(MemoryLimitError, match=r"^10000000 images need "):
            sampler.sample(10_000_000, steps=2)
        np.testing.assert_array_equal(sampler.sample(1, steps=2), expected)


def test_idle_chains_make_room(conditional_plan: Path) -> None:
    with Sampler(conditional_plan, engine="native", threads=1, batch_size=64) as sampler:
        loaded = sampler.info["running"]["memory"]
        sampler.sample(64, steps=2)
        one = sampler.info["running"]["memory"] - loaded
    with Sampler(conditional_plan, engine="native", threads=1, batch_size=64, max_memory=loaded + 2 * one) as sampler:
        for n in (64, 63, 62, 61, 60):
            sampler.sample(n, steps=2)
        assert sampler.info["running"]["memory"] <= loaded + 2 * one


def test_a_step_that_is_out_of_proportion(conditional_plan: Path) -> None:
    """Attention over 512 x 512 pixels in a file of a few numbers."""
    side = 512
    program = _native.Program(
        shape=(3, side, side),
        out_channels=1,
        tensors=[(3, side, side, False), (1, side, side, False)],
        weights=[],
        ops=[
            {"op": "input", "out": 0},
            {"op": "attention", "out": 1, "heads": 1, "head_channels": 1, "scale": 1.0}
            | {name: [0, i, 1] for i, name in enumerate("qkv")},
            {"op": "output", "x": 1},
        ],
        sources=[],
    )
    with pytest.raises(
        EngineError, match=r"^the native program takes 2\.2e\+12 multiplications .*more than the 2\.75e"
    ):
        native.checked_cost(program, 1, 1, [])
    assert native.checked_cost(program, 1, 1, [], trust=True).multiplications > 1e10
    with Plan.open(conditional_plan) as plan:
        info = plan.manifest.engines[0]
        sources = [plan.member(name) for name in info.data]
        made = native.check(plan.manifest.model, plan.member(info.member), *sources)
        assert native.checked_cost(made, 4, 1, sources).multiplications > 1e5


def network(*nodes: onnx.NodeProto, **initializers: np.ndarray) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


BIG = np.array([300_000_000])
BOMBS = {
    "when it runs": network(helper.make_node("Expand", ["x", "s"], ["y"]), s=BIG),
    "a constant": network(
        helper.make_node("ConstantOfShape", ["s"], ["b"]), helper.make_node("Add", ["x", "b"], ["y"]), s=BIG
    ),
    "many constants": network(
        *(
            helper.make_node("ConstantOfShape", ["s"], [f"b{i}"], value=numpy_helper.from_array(np.float32([i])))
            for i in range(150)
        ),
        helper.make_node("Sum", ["x", *(f"b{i}" for i in range(150))], ["y"]),
        s=np.array([2_000_000]),
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_onnx_runtime_takes_is_bounded(bomb: str) -> None:
    """1.2 GB in a kilobyte: neither while it is loaded nor when it runs does it take more than it may."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    session, _ = open_session(BOMBS[bomb], 1, budget=Budget(200_000_000))
    with pytest.raises(Exception, match="smaller than requested"):
        session.run(None, {"x": np.ones(1, np.float32)})
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 250_000_000


def test_every_session_has_a_limit_of_its_own() -> None:
    def runs(session: object) -> bool:
        try:
            session.run(None, {"x": np.ones(1, np.float32)})  # type: ignore[attr-defined]
        except Exception as error:
            return "smaller than requested" not in str(error)
        return True

    model = network(helper.make_node("Expand", ["x", "s"], ["y"]), s=np.array([2_000_000]))
    small, large, tiny = (open_session(model, 1, budget=Budget(size))[0] for size in (10**7, 10**9, 10**6))
    assert [runs(session) for session in (small, large, tiny, large, small)] == [False, True, False, True, False]


def test_a_struck_limit_is_one_sentence(conditional_plan: Path) -> None:
    with Plan.open(conditional_plan) as plan:
        size = len(plan.member("network.onnx"))
    with Sampler(conditional_plan, engine="onnxruntime", batch_size=4096, max_memory=size + 60_000_000) as sampler:
        match = "^ONNX Runtime needs [0-9,]+ bytes more .* give a smaller batch_size"
        with pytest.raises(MemoryLimitError, match=match):
            sampler.sample(2048, steps=2)
        assert len(sampler.sample(1, steps=2)) == 1


def graph(network: bytes) -> Message:
    found: Message = read(network).model["graph"]
    return found


def test_nodes_that_may_be_computed_at_once() -> None:
    assert foldable(graph(BOMBS["many constants"])) == 150
    assert foldable(graph(BOMBS["when it runs"])) == 0
    shapes = network(
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("Expand", ["c", "n"], ["b"]),
        helper.make_node("Add", ["x", "b"], ["y"]),
        c=np.ones(1, np.float32),
    )
    assert foldable(graph(shapes)) == 1


@pytest.mark.parametrize(
    ("text", "expected"), [("1000", 1000), ("2GiB", 2**31), ("1.5 gib", 3 * 2**29), ("500MB", 5 * 10**8), ("7B", 7)]
)
def test_a_size_on_the_command_line(text: str, expected: int) -> None:
    assert MemorySize().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-1", "2 apples", "1e9", "0x10", "nan", "9" * 30])
def test_a_text_that_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no number of bytes; give one such as 2GiB"):
        MemorySize().convert(text, None, None)


def test_the_limit_on_the_command_line(conditional_plan: Path, tmp_path: Path) -> None:
    for command in ("sample", "likelihood"):
        with pytest.raises(MemoryLimitError, match="of the limit of 1,000; "):
            pysdk.main([command, str(conditional_plan), "--max-memory", "1KB"], standalone_mode=False)
