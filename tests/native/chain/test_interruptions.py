"""Exceptions, other threads and signals while a chain runs: each comes out, and the chain goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from kit.small_chain import INDEX, SHAPE, begin, make_chain

from pysdk import _native, noise
from pysdk.diffusion.table import StepTable


def test_an_exception_of_the_denoiser_comes_out_and_the_row_can_be_run_again():
    undisturbed, chain = make_chain(), make_chain()
    begin(undisturbed)
    undisturbed.advance(4)
    fails = iter([False, True, False, False, True, False])

    def denoise() -> None:
        if next(fails):
            raise LookupError("of the network")

    chain.attach(denoise)
    begin(chain)
    with pytest.raises(LookupError, match="of the network"):
        chain.advance(4)
    assert chain.position == 1
    with pytest.raises(LookupError):
        chain.advance(4)
    assert chain.position == 3
    assert chain.advance(4) == 4
    np.testing.assert_array_equal(chain.x, undisturbed.x)
    chain.attach(lambda: None)
    begin(chain)
    assert chain.advance(4) == 4


def test_an_exception_of_the_noise_comes_out_and_the_row_can_be_run_again():
    failing = True

    def foreign(draw: int) -> np.ndarray:
        if failing and draw == 2:
            raise LookupError("of the noise")
        return noise.normal(INDEX, INDEX, draw, SHAPE)

    undisturbed, chain = make_chain(), make_chain()
    begin(undisturbed)
    undisturbed.advance(4)
    begin(chain, noise=foreign)
    with pytest.raises(LookupError, match="of the noise"):
        chain.advance(4)
    failing = False
    assert chain.position == 1
    assert chain.advance(4) == 4
    np.testing.assert_array_equal(chain.x, undisturbed.x)


@pytest.mark.parametrize(
    "call",
    [
        lambda chain: chain.advance(1),
        begin,
        lambda chain: chain.attach(lambda: None),
    ],
    ids=["advance", "begin", "attach"],
)
def test_a_running_chain_refuses_calls_from_its_own_denoiser(call: Any):
    chain = make_chain()
    chain.attach(lambda: call(chain))
    begin(chain)
    with pytest.raises(RuntimeError, match="the chain is already running"):
        chain.advance(1)
    chain.attach(lambda: None)
    assert chain.advance(4) == 4


def test_a_running_chain_refuses_calls_from_another_thread():
    chain = make_chain()
    inside, leave = threading.Event(), threading.Event()

    def denoise() -> None:
        inside.set()
        assert leave.wait(10)

    chain.attach(denoise)
    begin(chain)
    worker = threading.Thread(target=chain.advance, args=(1,))
    worker.start()
    try:
        assert inside.wait(10)
        for call in (lambda: chain.advance(1), lambda: begin(chain), lambda: chain.attach(denoise)):
            with pytest.raises(RuntimeError, match="use one chain per thread"):
                call()
    finally:
        leave.set()
        worker.join()
    assert chain.position == 1


def test_two_chains_in_two_threads():
    def run(chain: _native.Chain) -> None:
        chain.advance(10**6)

    chains = [make_chain(batch=16, shape=(3, 32, 32), threads=2) for _ in range(3)]
    rows = StepTable.from_columns(t=np.zeros(60), q=1.0, a=0.5, b=0.5, s=1.0).float32()
    index = np.arange(16, dtype=np.uint64)
    for chain in chains:
        begin(chain, rows=rows, seeds=index, images=index)
    workers = [threading.Thread(target=run, args=(chain,)) for chain in chains[:2]]
    for worker in workers:
        worker.start()
    run(chains[2])
    for worker in workers:
        worker.join()
    np.testing.assert_array_equal(chains[0].x, chains[1].x)
    np.testing.assert_array_equal(chains[0].x, chains[2].x)


def test_other_threads_run_while_a_row_does():
    chain = make_chain(batch=16, shape=(3, 512, 512))
    rows = StepTable.from_columns(t=[0.0], q=1.0, a=0.5, b=0.5, s=1.0).float32()
    index = np.arange(16, dtype=np.uint64)
    begin(chain, rows=rows, seeds=index, images=index)
    started, done = threading.Event(), threading.Event()
    ticks: list[float] = []

    def tick() -> None:
        started.set()
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    started.wait()
    start = time.perf_counter()
    chain.advance(1)  # one row of 12.6 million elements, a trivial denoiser
    end = time.perf_counter()
    done.set()
    ticker.join()
    assert sum(start < t < end for t in ticks) >= 3, "the GIL was held during the row"


INTERRUPTED = """
import numpy as np, sys, time
from pysdk import _native
from pysdk.diffusion.table import StepTable
chain = _native.Chain(batch=2, shape=(1, 8, 8))
calls = 0
def denoise():
    global calls
    calls += 1
    if calls == 3: print("ready", flush=True)
    deadline = time.perf_counter() + 0.02
    while time.perf_counter() < deadline: pass
chain.attach(denoise)
rows = StepTable.from_columns(t=np.zeros(100_000), q=1.0, b=1.0).float32()
index = np.arange(2, dtype=np.uint64)
chain.begin(_native.StepTable(rows), seeds=index, images=index)
try:
    chain.advance(100_000)
except KeyboardInterrupt:
    assert calls - chain.position in (0, 1), (calls, chain.position)
    done = chain.position
    assert chain.advance(2) == done + 2
    chain.begin(_native.StepTable(rows[:2].copy()), seeds=index, images=index)
    assert chain.advance(9) == 2
    print("interrupted", done, flush=True)
"""


def test_ctrl_c_stops_within_one_step_and_leaves_the_chain_usable():
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "ready"
        start = time.perf_counter()
        child.send_signal(signal.SIGINT)
        word, done = child.stdout.readline().split()
        assert word == "interrupted"
        assert int(done) < 1000
        assert time.perf_counter() - start < 5
        assert child.wait(10) == 0
