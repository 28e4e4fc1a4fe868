"""The device chain on a simulated device: its own kernels, graphs and branches, bit for bit as the numpy twin.

Only the driver's calls are imitated here (see csrc/cuda/simulated_device.h); tests/gpu has what needs a real one.
"""

from __future__ import annotations

import gc
import math
import signal
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
from device_cases import begin, make_chain, play
from hypothesis import given, settings
from hypothesis import strategies as st
from test_native_update import CLIPS, assert_same_bits, make_case

from pysdk import _native, images, noise
from pysdk.table import Clip

PATHS = ["while", "step", "plain"]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 13)),
    rows=st.integers(1, 6),
    clip=CLIPS,
    learned_variance=st.booleans(),
    guided=st.booleans(),
    initial=st.booleans(),
    skips=st.booleans(),
    classifier=st.booleans(),
    known=st.booleans(),
    zeros=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    path=st.sampled_from(PATHS),
    half=st.booleans(),
)
def test_chain_equals_the_numpy_twin(seed: int, path: str, half: bool, **options: Any):
    case = make_case(np.random.default_rng(seed), **options)
    played = play(_native.SimulatedDevice(), case, path, half=half and case.guidance is not None)
    assert played.chain.advance(10**6) == len(case.table)
    assert played.chain.path == path
    played.assert_equals_reference()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("clip", [Clip.none(), Clip.clamp(), Clip.dynamic(0.9)], ids=lambda clip: clip.kind)
def test_nan_and_infinity_pass_through_alike(clip: Clip, path: str):
    case = make_case(np.random.default_rng(0), batch=4, shape=(1, 6, 7), rows=3, clip=clip, zeros=0.0)
    case.outputs[0, 0, 0, 1, 1] = np.nan
    case.outputs[0, 1, 0, 2, 2] = np.inf
    case.outputs[1, 2, 0, 3, 3] = -np.inf
    played = play(_native.SimulatedDevice(), case, path)
    played.chain.advance(3)
    played.assert_equals_reference()


@pytest.mark.parametrize("values", ["equal", "two", "subnormal"])
def test_the_threshold_is_the_same_order_statistic_among_ties(values: str):
    rng = np.random.default_rng(3)
    for ratio in (0.001, 0.5, 0.995, 1.0):
        case = make_case(rng, batch=2, shape=(3, 16, 16), rows=2, clip=Clip.dynamic(ratio), zeros=0.0)
        shape = case.outputs.shape
        case.outputs[:] = {
            "equal": np.full(shape, 3.5),
            "two": rng.choice([-2.0, 5.0], shape),
            "subnormal": rng.choice([1e-42, -3e-44, 7.0], shape),
        }[values]
        case.table.rows.setflags(write=True)
        case.table.rows[:, 2] = 0  # p: r is q times the output alone
        played = play(_native.SimulatedDevice(), case, "while")
        played.chain.advance(2)
        played.assert_equals_reference()


def test_the_whole_chain_is_one_launch_of_a_loop():
    device = _native.SimulatedDevice()
    case = make_case(np.random.default_rng(1), rows=5, clip=Clip.dynamic(0.9))
    played = play(device, case)
    device.clear_log()
    played.chain.advance(5)
    assert device.log == [
        "full",
        "synchronize",  # the network runs once before it is captured
        *["make_graph", "make_condition", "add_while"],
        *["begin_capture", "> full", "end_capture"],
        *["begin_capture", "> threshold", "> update", "> advance", "end_capture"],
        *["instantiate", "upload", "launch"],
    ]
    begin(played.chain, case)
    device.clear_log()
    played.chain.advance(5)
    assert device.log == ["upload", "launch"], "another program runs on the same graph"
    played.assert_equals_reference()


def test_networks_that_only_some_rows_call_sit_in_branches():
    device = _native.SimulatedDevice()
    case = make_case(np.random.default_rng(4), rows=6, guided=True, skips=True, classifier=True)
    played = play(device, case, half=True)
    assert {name.split()[0] for name in played.expected_calls()} == {"full", "half", "classifier"}
    device.clear_log()
    played.chain.advance(6)
    made = device.log[device.log.index("make_graph") :]
    branch = [["add_if", "begin_capture", f"> {name}", "end_capture"] for name in ("full", "half", "classifier")]
    assert made == [
        *["make_graph", "make_condition", "add_while"],
        *["make_condition"] * 3,
        *["begin_capture", "> prepare", "end_capture"],
        *(call for calls in branch for call in calls),
        *["begin_capture", "> update", "> advance", "end_capture"],
        *["instantiate", "upload", "launch"],
    ]
    played.assert_equals_reference()


def test_step_launches_a_graph_per_row_and_plain_none():
    for path, name in (("step", "launch"), ("plain", "update")):
        device = _native.SimulatedDevice()
        played = play(device, make_case(np.random.default_rng(1), rows=5), path)
        device.clear_log()
        played.chain.advance(5)
        assert device.log.count(name) == 5
        assert device.log.count("instantiate") == (1 if path == "step" else 0)


def test_a_chain_may_be_run_in_pieces():
    case = make_case(np.random.default_rng(6), rows=6)
    for path in PATHS:
        played = play(_native.SimulatedDevice(), case, path)
        assert [played.chain.advance(count) for count in (1, 0, 3, 99)] == [1, 1, 4, 6]
        played.assert_equals_reference()


@pytest.mark.parametrize("call", ["make_condition", "add_while", "instantiate"])
def test_a_driver_without_loops_gets_a_launch_per_row(call: str):
    device = _native.SimulatedDevice()
    played = play(device, make_case(np.random.default_rng(1), rows=3))
    device.fail(call, how="refused")
    live = device.live
    played.chain.advance(3)
    assert played.chain.path == "step"
    assert call in played.chain.why
    assert device.live == live + 2, "one graph and its executable: nothing of the refused one is left"
    played.assert_equals_reference()
    begin(played.chain, played.case)
    device.clear_log()
    played.chain.advance(3)
    assert "add_while" not in device.log, "what was refused is not tried again"


def test_a_network_that_cannot_be_captured_is_called_plainly():
    device = _native.SimulatedDevice()
    case = make_case(np.random.default_rng(1), rows=3, batch=1)
    for path in ("auto", "while", "step"):
        chain = make_chain(device, case, path)
        output = np.from_dlpack(chain.network_output)

        def network(stream: int, chain: Any = chain, output: Any = output) -> None:
            device.empty((4,), "uint8")  # an allocation, which a capture does not allow
            device.call(stream, "network", lambda: np.copyto(output, case.outputs[chain.position]))

        chain.attach(network)
        begin(chain, case)
        if path == "auto":
            chain.advance(3)
            assert chain.path == "plain"
            assert chain.why.count("the network cannot be captured: allocate is not allowed") == 2
            assert_same_bits(chain.x.numpy(), case.reference()[0].x)
        else:
            with pytest.raises(_native.CaptureError, match="cannot be captured"):
                chain.advance(3)


def test_ctrl_c_in_a_network_is_no_refusal():
    device = _native.SimulatedDevice()
    case = make_case(np.random.default_rng(1), rows=3)
    chain = make_chain(device, case, "auto")
    calls = 0

    def network(_stream: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    chain.attach(network)
    begin(chain, case)
    with pytest.raises(KeyboardInterrupt):
        chain.advance(3)
    assert calls == 2


def test_a_network_that_fails_is_an_error():
    device = _native.SimulatedDevice()
    case = make_case(np.random.default_rng(1), rows=3)

    def broken(_stream: int) -> None:
        raise LookupError("no such layer")

    for path in ("auto", "plain"):
        chain = make_chain(device, case, path)
        chain.attach(broken)
        begin(chain, case)
        with pytest.raises(LookupError, match="no such layer"):
            chain.advance(3)
        assert chain.position == 0
        chain.attach(lambda _stream: False)
        with pytest.raises(_native.CudaError, match="returned False"):
            chain.advance(3)


@pytest.mark.parametrize("call", ["upload", "start", "launch", "synchronize", "make_graph", "bytes", "download"])
def test_a_failed_call_comes_out_as_an_error(call: str):
    device = _native.SimulatedDevice()
    case = make_case(np.random.default_rng(1), rows=3)
    played = play(device, case)
    device.fail(call)

    def everything() -> None:
        begin(played.chain, case)
        played.chain.advance(3)
        played.chain.bytes(None, images=1)

    with pytest.raises(_native.CudaError, match=f"{call}: failure asked for"):
        everything()
    everything()  # and the chain can be used again
    played.assert_equals_reference()


def test_memory_that_runs_out_is_named_and_none_is_kept():
    device = _native.SimulatedDevice(memory=100_000)
    case = make_case(np.random.default_rng(1), batch=1, shape=(1, 40, 40))
    played = play(device, case)
    assert played.chain.memory == 100_000 - device.memory[0]
    with pytest.raises(MemoryError, match=r"no room for .* use a smaller batch_size"):
        _native.CudaChain(device, batch=64, shape=(3, 40, 40))
    device.fail("instantiate", how="memory")
    with pytest.raises(MemoryError):
        played.chain.advance(1)
    played.chain.advance(99)
    played.assert_equals_reference()
    del played
    gc.collect()
    assert device.memory == (100_000, 100_000)
    assert device.live == 0


def test_graphs_are_bounded():
    device = _native.SimulatedDevice()
    rng = np.random.default_rng(2)
    case = make_case(rng, rows=4, guided=True)
    played = play(device, case, half=True)
    live = device.live
    for i in range(40):
        other = make_case(
            rng, rows=4, guided=True, skips=bool(i % 2), clip=[Clip.none(), Clip.dynamic(0.9)][i % 4 // 2]
        )
        played.case.table, played.case.outputs = other.table, other.outputs
        begin(played.chain, played.case, learned_variance=False)
        played.chain.advance(4)
    assert device.live <= live + 2 * 8 + 2, "graphs, executables, and the two arrays of a dynamic threshold"


def test_the_garbage_collector_finds_chains():
    device = _native.SimulatedDevice()
    played = play(device, make_case(np.random.default_rng(1), rows=3))
    played.chain.advance(3)
    found = weakref.ref(played)
    del played
    gc.collect()
    assert found() is None
    assert device.live == 0


@pytest.mark.parametrize("path", ["auto", "step", "plain"])
def test_foreign_noise_is_asked_for_row_by_row(path: str):
    case = make_case(np.random.default_rng(8), rows=4, known=True, zeros=0.0)
    asked = []

    def draw(number: int) -> Any:
        asked.append(number)
        return noise.normal(case.seeds, case.images, number, case.shape)

    played = play(_native.SimulatedDevice(), case, path)
    begin(played.chain, case, noise=draw)
    played.chain.advance(99)
    assert played.chain.path == ("step" if path == "auto" else path)
    assert ("noise" in played.chain.why) == (path == "auto")
    assert asked == [0] + [draw for k in range(4) for draw in (1 + k, 2**31 + k)]
    played.assert_equals_reference()
    with pytest.raises(ValueError, match="path is 'while', but noise"):
        begin(play(_native.SimulatedDevice(), case, "while").chain, case, noise=draw)


@pytest.mark.parametrize("path", PATHS)
def test_snapshots_are_the_chain_on_its_way(path: str):
    case = make_case(np.random.default_rng(9), rows=7, skips=True)
    wanted = play(_native.SimulatedDevice(), case, path).chain
    played = play(_native.SimulatedDevice(), case, path)
    played.chain.keep_snapshots(2, 3)
    begin(played.chain, case)
    for until, readable in ((5, [2, 4]), (7, [4, 6, 7])):
        played.chain.advance(until - played.chain.position)
        for row in readable:
            wanted_at = play(_native.SimulatedDevice(), case, path).chain
            wanted_at.advance(row)
            assert_same_bits(played.chain.snapshot(row), wanted_at.x.numpy())
            assert_same_bits(played.chain.snapshot(row, denoised=True), wanted_at.denoised.numpy())
    for row, reason in ((2, "written over"), (3, "no snapshot"), (0, "no snapshot"), (8, "no snapshot")):
        with pytest.raises(ValueError, match=reason):
            played.chain.snapshot(row)
    with pytest.raises(ValueError, match="no snapshot"):
        wanted.snapshot(1)


def test_bytes_are_those_of_the_host():
    device = _native.SimulatedDevice()
    for shape in ((1, 5, 7), (3, 8, 8)):
        case = make_case(np.random.default_rng(1), batch=3, shape=shape, rows=1, zeros=0.0, initial=True)
        chain = play(device, case).chain
        edges = np.linspace(-1.2, 1.2, math.prod(shape), dtype=np.float32)
        for value_range in ((-1.0, 1.0), (0.0, 1.0), (-3.0, 2.5)):
            start = np.stack([edges, edges[::-1], np.round(edges * 255) / 255]).astype(np.float32).reshape(3, *shape)
            begin(chain, case, initial=start)
            to = device.empty((5, *shape[1:], shape[0]), "uint8")
            assert chain.bytes(to, first=1, images=3, value_range=value_range) is None
            np.testing.assert_array_equal(to.numpy()[1:4], images.to_uint8(start, value_range))
            assert not to.numpy()[[0, 4]].any()
        for broken in (np.nan, np.inf, -np.inf):
            start[1, 0, 0, 0] = broken
            begin(chain, case, initial=start)
            assert chain.bytes(None, images=3) == 1
            assert chain.bytes(None, images=1) is None
    with pytest.raises(ValueError, match="do not fit"):
        chain.bytes(device.empty((2, 8, 8, 3), "uint8"), images=3)
    with pytest.raises(TypeError, match="float32 is needed"):
        chain.copy_x(device.empty((3, 3, 8, 8), "uint8"), images=3)


def test_arrays_outlive_their_chain_and_are_not_copied():
    device = _native.SimulatedDevice()
    case = make_case(np.random.default_rng(1), batch=2, rows=2)
    played = play(device, case)
    played.chain.advance(2)
    x, result = played.chain.x, device.empty((5, *case.shape), "float32")
    wanted = x.numpy()
    played.chain.copy_x(result, first=3, images=2)
    view = np.from_dlpack(x)
    assert view.ctypes.data == x.pointer
    assert (len(result), result.shape, result.dtype) == (5, (5, *case.shape), "float32")
    assert result.head(3).shape == (3, *case.shape)
    del played
    gc.collect()
    assert_same_bits(view, wanted)
    del x
    gc.collect()
    assert_same_bits(view, wanted)
    assert_same_bits(result.numpy()[3:], wanted)
    with pytest.raises(BufferError, match="without a copy"):
        result.__dlpack__(copy=True)
    for version in (None, (1, 0)):
        result.__dlpack__(max_version=version)  # a capsule nobody takes is freed
    del view, result
    gc.collect()
    assert device.live == 0


def test_there_is_no_device_without_a_driver_and_the_reason_is_said():
    built, devices, text = _native.cuda_status()
    assert text
    if devices:
        pytest.skip("this machine has one")
    with pytest.raises(_native.CudaError, match=r"built (with|without) (a )?CUDA") as raised:
        _native.cuda_device(0)
    assert ("driver" in str(raised.value)) or not built


def test_ctrl_c_while_waiting_ends_the_chain():
    """The simulated device runs a row while it is enqueued, so rows are what signals come between."""
    device = _native.SimulatedDevice()
    case = make_case(np.random.default_rng(1), rows=6)
    chain = make_chain(device, case, "plain")
    chain.attach(lambda stream: device.call(stream, "slow", lambda: time.sleep(0.1)))
    begin(chain, case)
    timer = threading.Timer(0.15, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        chain.advance(6)
    timer.join()
    assert 0 < chain.position < 6
    assert chain.advance(99) == 6
