"""What a device chain does when calls fail, captures are refused, memory runs out or somebody presses Ctrl-C.

Only the driver's calls are imitated here (see csrc/testing/simulated_device.h); tests/gpu has what needs a real one.
"""

from __future__ import annotations

import dataclasses
import gc
import signal
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
from kit.chain_cases import assert_same_bits, make_case
from kit.cuda.device_cases import begin, make_chain, play

from pysdk import _native, _testing
from pysdk.diffusion.table import Clip

PATHS = ["while", "step", "plain"]


@pytest.mark.parametrize("call", ["make_condition", "add_while", "instantiate"])
def test_a_driver_without_loops_gets_a_launch_per_row(call: str):
    device = _testing.SimulatedDevice()
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
    device = _testing.SimulatedDevice()
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
        assert "graph destroyed twice" not in device.log, "an invalid capture took a graph of ours with it"


def test_another_thread_runs_a_network_before_it_captures_it():
    """Libraries keep handles and plans for each thread, and cannot make them in a capture."""
    device = _testing.SimulatedDevice()
    case = make_case(np.random.default_rng(1), rows=3)
    chain = make_chain(device, case, "auto")
    threads: list[int] = []
    chain.attach(lambda stream: threads.append(threading.get_ident()))

    def run(clip: Clip) -> None:  # another kind of threshold is another graph
        begin(chain, case, table=dataclasses.replace(case.table, clip=clip).native)
        chain.advance(3)

    run(Clip.none())
    assert len(threads) == 2, "plainly, and captured"
    other = threading.Thread(target=run, args=[Clip.dynamic()])
    other.start()
    other.join()
    assert [ident == threading.get_ident() for ident in threads] == [True, True, False, False]


def test_nothing_is_collected_while_a_network_is_captured():
    """What the collector finds may free device memory, which ends a capture."""
    device = _testing.SimulatedDevice()
    case = make_case(np.random.default_rng(1), rows=3)
    chain = make_chain(device, case, "auto")
    enabled = []
    chain.attach(lambda stream: enabled.append(gc.isenabled()))
    begin(chain, case)
    chain.advance(3)
    assert enabled == [False, False]
    assert gc.isenabled()


def test_ctrl_c_in_a_network_is_no_refusal():
    device = _testing.SimulatedDevice()
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
    device = _testing.SimulatedDevice()
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
    device = _testing.SimulatedDevice()
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
    device = _testing.SimulatedDevice(memory=100_000)
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
    device = _testing.SimulatedDevice()
    rng = np.random.default_rng(2)
    case = make_case(rng, rows=4, guided=True)
    played = play(device, case, half=True)
    live = device.live
    for i in range(40):
        other = make_case(
            rng, rows=4, guided=True, skips=bool(i % 2), clip=[Clip.none(), Clip.dynamic(0.9)][i % 4 // 2]
        )
        played.case.table, played.case.outputs = other.table, other.outputs
        begin(played.chain, played.case)
        played.chain.advance(4)
    assert device.live <= live + 2 * 8 + 2, "graphs, executables, and the two arrays of a dynamic threshold"


def test_the_garbage_collector_finds_chains():
    device = _testing.SimulatedDevice()
    played = play(device, make_case(np.random.default_rng(1), rows=3))
    played.chain.advance(3)
    found = weakref.ref(played)
    del played
    gc.collect()
    assert found() is None
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
    device = _testing.SimulatedDevice()
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
