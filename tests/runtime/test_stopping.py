"""Ctrl-C and deadlines: a call ends within a second or two, whatever it is at, and the sampler goes on afterwards.

What is interrupted would take far longer than the limit here, so that no test depends on how fast the machine is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kit.tiny_networks import toy_engine, write_toy_plan
from onnx import TensorProto, helper

from pysdk import Plan, Sampler, _native
from pysdk.errors import DeadlineError, OptionError, OptionTypeError
from pysdk.export.preparation import step
from pysdk.machine.interrupts import interruptible
from pysdk.machine.processors import default_threads

LIMIT = 8.0
"""Seconds within which a call has to end on a busy machine; each would last a minute or more."""


def attention(side: int) -> tuple[_native.Network, np.ndarray]:
    """One attention over side x side pixels of 64 channels."""
    channels, rng = 64, np.random.default_rng(0)
    wide = rng.standard_normal((3 * channels, 1, 1, 1)).astype(np.float32) / 8
    narrow = rng.standard_normal((1, channels, 1, 1)).astype(np.float32) / 8
    conv = {"op": "conv", "stride": 1, "upsample": 1, "pads": (0, 0, 0, 0), "tactic": "direct"}
    program = _native.Program(
        shape=(1, side, side),
        out_channels=1,
        tensors=[(count, side, side, False) for count in (1, 3 * channels, channels, 1)],
        weights=[(wide.shape, [(0, 0, 3 * channels, 1, False)]), (narrow.shape, [(1, 0, 1, channels, False)])],
        ops=[
            {"op": "input", "out": 0},
            {**conv, "x": (0,), "weight": 0, "out": 1},
            {
                "op": "attention",
                **{name: (1, index * channels, channels) for index, name in enumerate("qkv")},
                "heads": 1,
                "head_channels": channels,
                "scale": 0.125,
                "out": 2,
            },
            {**conv, "x": (2,), "weight": 1, "out": 3},
            {"op": "output", "x": 3},
        ],
        sources=[wide.tobytes(), narrow.tobytes()],
    )
    program.pack()
    x = rng.standard_normal((1, 1, side, side)).astype(np.float32)
    out = np.zeros_like(x)
    network = _native.Network(
        program,
        network_input=x,
        network_time=np.zeros(1, np.float32),
        network_labels=np.zeros(1, np.int64),
        network_output=out,
        threads=2,
    )
    return network, out


def matrix_products(count: int, size: int) -> bytes:
    """An ONNX network 1x1xsize: x / 2 behind `count` products of size x size matrices, which do not change it."""
    identity = helper.make_tensor(
        "one", TensorProto.FLOAT, (size, size), np.eye(size, dtype=np.float32).tobytes(), True
    )
    nodes = [helper.make_node("Mul", ["half", "one"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{i}", "one"], [f"m{i + 1}"]) for i in range(count)]
    nodes += [
        helper.make_node("Mul", ["t", "zero"], ["nothing"]),
        helper.make_node("Add", ["one", "nothing"], ["start"]),
        helper.make_node("MatMul", ["x", f"m{count}"], ["output"]),
    ]
    nodes[0] = helper.make_node("Mul", ["start", "half"], ["m0"])  # depends on t: not folded away when it is loaded
    order = [nodes[-3], nodes[-2], *nodes[:-3], nodes[-1]]
    scalar = [
        helper.make_tensor(name, TensorProto.FLOAT, (1,), [value]) for name, value in (("half", 0.5), ("zero", 0))
    ]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 1, 1, size))]
    values.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, (1,)))
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ("batch", 1, 1, size))
    graph = helper.make_graph(order, "products", values, [output], [identity, *scalar])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def interrupted(call: Callable[[], object], after: float = 0.3) -> float:
    """Seconds from a real SIGINT to the KeyboardInterrupt that it made of the call."""
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(after, send)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        return time.monotonic() - sent[0]
    finally:
        timer.join()


def test_ctrl_c_leaves_one_operation_of_the_native_engine() -> None:
    network, _ = attention(512)
    assert interrupted(network) < LIMIT
    assert interrupted(network) < LIMIT  # it can be run again
    small, out = attention(16)
    small()
    again, expected = attention(16)
    again()
    assert np.array_equal(out, expected)


def test_a_stop_of_another_thread_leaves_a_chain_which_goes_on_with_the_same_bits() -> None:
    network, _ = attention(512)
    stop = _native.Stop()
    chain = _native.Chain(batch=1, shape=(1, 4, 4))
    chain.attach(network)
    rows = np.zeros((2, len(_native.STEP_COLUMNS)), np.float32)
    rows[:, _native.STEP_COLUMNS.index("a")] = 1
    one = {"seeds": np.zeros(1, np.uint64), "images": np.zeros(1, np.uint64)}
    chain.begin(_native.StepTable(rows), **one)
    before = chain.x.copy()
    timer = threading.Timer(0.3, stop.ask)
    timer.start()
    start = time.monotonic()
    with pytest.raises(_native.StoppedError, match="asked to stop"):
        chain.advance(2, stop)
    assert time.monotonic() - start < LIMIT
    timer.join()
    assert (chain.position, stop.asked) == (0, True)
    with pytest.raises(_native.StoppedError):
        chain.advance(2, stop)
    chain.attach(lambda: None)
    assert chain.advance(2) == 2
    assert np.array_equal(chain.x, before)


def test_a_handler_that_does_not_raise_stops_nothing() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    network, out = attention(96)
    try:
        timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        for _ in range(1000):
            network()
            if seen:
                break
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    expected, other = attention(96)
    expected()
    assert seen == [signal.SIGINT]
    assert np.array_equal(out, other)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan whose step takes ONNX Runtime minutes, in nodes of some milliseconds."""
    path = tmp_path_factory.mktemp("slow") / "slow.plan"
    return write_toy_plan(path, matrix_products(3000, 1024), engines=(toy_engine(),), shape=(1, 1, 1024))


@pytest.mark.slow
def test_ctrl_c_and_a_deadline_leave_onnx_runtime_which_runs_again(slow: Path, tmp_path: Path) -> None:
    with Sampler(slow) as sampler:
        assert interrupted(lambda: sampler.sample(1, steps=2), 0.5) < LIMIT
        start = time.monotonic()
        with pytest.raises(DeadlineError, match=r"^the deadline of 0\.5 s is over: 0 of 1 images were done") as caught:
            sampler.sample(1, steps=2, deadline=0.5)
        assert time.monotonic() - start < LIMIT
        assert isinstance(caught.value, TimeoutError)
    quick = write_toy_plan(tmp_path / "quick.plan", matrix_products(1, 64), shape=(1, 1, 64))
    with Sampler(quick) as sampler:
        whole = sampler.sample(2, output="float32")
        with pytest.raises(DeadlineError):
            sampler.sample(1, deadline=1e-9)
        assert np.array_equal(sampler.sample(2, output="float32", deadline=1e9), whole)


def test_a_network_that_was_interrupted_runs_again() -> None:
    stopped = threading.Event()

    def run() -> None:
        if stopped.wait(60):
            raise ValueError("terminated")

    asked: list[bool] = []

    def interrupt(stop: bool) -> None:
        asked.append(stop)
        stopped.set() if stop else stopped.clear()

    network = _native.InterruptibleNetwork(run, interrupt)
    assert interrupted(network) < LIMIT
    assert asked == [True, False]
    stopped.set()
    with pytest.raises(ValueError, match="terminated"):
        network()
    assert asked == [True, False]


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), 10**400])
def test_a_deadline_is_a_finite_number_above_0(toy: Sampler, deadline: float) -> None:
    with pytest.raises(OptionError, match=r"deadline is .*, expected a finite number of seconds above 0"):
        toy.sample(1, deadline=deadline)


@pytest.mark.parametrize("deadline", ["5", True, [1]])
def test_a_deadline_is_a_number(toy: Sampler, deadline: Any) -> None:
    with pytest.raises(OptionTypeError, match=r"deadline is .*, expected a number of seconds"):
        toy.stream(1, deadline=deadline)


@pytest.fixture
def toy(tmp_path: Path) -> Sampler:
    return Sampler(write_toy_plan(tmp_path / "toy.plan"))


LATE = {"deadline": 1e-9}


@pytest.mark.parametrize(
    "use",
    [
        lambda s, x: s.sample(2, **LATE),
        lambda s, x: list(s.stream(2, **LATE)),
        lambda s, x: s.encode(x, steps=4, **LATE),
        lambda s, x: s.decode(np.zeros((2, 1, 2, 2), np.float32), steps=4, **LATE),
        lambda s, x: s.interpolate(x[0], x[1], 3, steps=4, **LATE),
        lambda s, x: s.image_to_image(x, **LATE),
        lambda s, x: s.inpaint(x, np.eye(2), jump_n_sample=1, **LATE),
        lambda s, x: s.likelihood(x, **LATE),
    ],
    ids=["sample", "stream", "encode", "decode", "interpolate", "image_to_image", "inpaint", "likelihood"],
)
def test_every_use_has_a_deadline(toy: Sampler, use: Callable[[Sampler, np.ndarray], object]) -> None:
    with pytest.raises(DeadlineError, match=r"^the deadline of 1e-09 s is over"):
        use(toy, np.zeros((2, 2, 2, 1), np.uint8))
    assert toy.sample(1).shape == (1, 2, 2, 1)


def test_ctrl_c_ends_the_checking_of_a_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, checked = write_toy_plan(tmp_path / "toy.plan"), []
    monkeypatch.setattr("pysdk.plan.reader._CHUNK", 1)
    monkeypatch.setattr(Plan, "_give_back", lambda self: (checked.append(1), time.sleep(0.05)))
    with Plan.open(path) as plan:
        with pytest.raises(KeyboardInterrupt), plan.verifying(["network.onnx"]):
            raise KeyboardInterrupt
        assert len(checked) < 20 < plan.manifest.members["network.onnx"].size
        with plan.verifying([]):
            pass


def test_what_foreign_code_makes_of_ctrl_c_is_known() -> None:
    def foreign() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("the graph could not be captured") from None

    with pytest.raises(KeyboardInterrupt), step("export to ONNX", False):
        foreign()
    with pytest.raises(KeyboardInterrupt), step("export to ONNX", False), suppress(RuntimeError):
        foreign()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interruptible_call_is_cancelled_and_waited_for() -> None:
    cancelled, ended = threading.Event(), threading.Event()

    def work() -> None:
        cancelled.wait(60)
        ended.set()

    assert interrupted(lambda: interruptible(work, cancelled.set)) < LIMIT
    assert ended.is_set()
    assert interruptible(default_threads, cancelled.set) == default_threads()
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0, cancelled.set)


def ctrl_c(command: list[str], seconds: float) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that gets SIGINT after so many seconds."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


MAIN = [sys.executable, "-m", "pysdk.cli"]


DONE = """
import atexit, time, click
from pysdk.cli.commands import run
atexit.register(time.sleep, 1)
run(click.Command("done", callback=lambda: click.echo("done")))
"""


def test_ctrl_c_after_a_command_is_done_changes_nothing() -> None:
    """Python's own end takes a second after torch, and gives signals back their default, of which the process died."""
    process = subprocess.Popen([sys.executable, "-c", DONE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_command_begins_with_its_handler() -> None:
    """Whatever is imported before it is time in which Ctrl-C gives a traceback."""
    code = "import sys; before = set(sys.modules); import pysdk.cli.__main__; print(*sorted(set(sys.modules) - before))"
    found = set(python(code).stdout.split())
    ours = {name for name in found if name.startswith("pysdk")}
    assert ours == {"pysdk", "pysdk.cli", "pysdk.cli.__main__", "pysdk.machine", "pysdk.machine.early_exit"}
    assert not found & {"typing", "threading", "click", "numpy", "json"}


def test_ctrl_c_before_the_command_runs() -> None:
    for module in ("pysdk.cli.__main__", "pysdk.cli.__main__, pysdk.cli.commands"):
        done = python(f"import {module}, signal; signal.raise_signal(signal.SIGINT)")
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    done = python("import pysdk.cli.commands, signal; signal.raise_signal(signal.SIGINT)")
    assert "KeyboardInterrupt" in done.stderr  # who imports the commands alone keeps the handler there is


def moments(count: int, last: float) -> list[float]:
    """Seconds after the start of a process, from where Python itself is up."""
    first = float(os.environ.get("PYSDK_TEST_FIRST_INTERRUPT", "0.25"))
    return [round(float(at), 3) for at in np.linspace(first, last, count)]


@pytest.mark.slow
@pytest.mark.parametrize("after", moments(int(os.environ.get("PYSDK_TEST_INTERRUPTS", "3")), 6.0))
def test_ctrl_c_in_build_is_an_interrupt(conditional_checkpoint: Path, tmp_path: Path, after: float) -> None:
    out = tmp_path / "new.plan"
    code, said, err = ctrl_c([*MAIN, "build", str(conditional_checkpoint), "-o", str(out)], after)
    if code == 0:  # done before
        assert said.startswith("wrote ")
        return
    assert (code, said) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert "error" not in err
    assert list(tmp_path.iterdir()) == []
