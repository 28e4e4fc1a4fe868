"""No global state: networks side by side, threads of Python, forks, and what keeps what alive."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.engine.chain import chain_of
from kit.engine.corpus import CORPUS, normal, unet
from kit.engine.programs import Program
from kit.processes import IMPORTS

from pysdk.diffusion.table import StepTable

SANITIZED = os.environ.get("PYSDK_SANITIZE", "")


def slow() -> Program:
    """A network that runs for about 10 ms."""
    program = Program(normal(0, 8, 64, 16, 16))
    x = program.image()
    for i in range(3):
        x = program.conv([x], normal(i, 64, 64, 3, 3) / 24, [1] * 4)
    return program.output(x)


def test_networks_of_one_program_with_other_thread_counts():
    program = unet(3)
    expected = program.run()
    native = program.native()
    networks = [program.bind(threads, native) for threads in (1, 2, 5, 3)]
    for _ in range(3):
        for network, output in networks:
            output[:] = 0
            network()
            np.testing.assert_array_equal(output, expected)


def test_several_python_threads_run_their_own_networks():
    programs = [CORPUS["U-Net"](), unet(4), unet(5), CORPUS["every op"]()]
    expected = [program.run() for program in programs]
    natives = [program.native(2) for program in programs]
    failures: list[str] = []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        which = number % len(programs)
        network, output = programs[which].bind(1 + number % 3, natives[which])
        barrier.wait(30)
        for _ in range(10):
            output[:] = 0
            network()
            if not np.array_equal(output, expected[which]):
                failures.append(f"thread {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_one_network_from_two_threads():
    program = slow()
    network, output = program.bind(2)
    network()
    expected = output.copy()
    errors: list[RuntimeError] = []
    done = [0, 0]
    barrier = threading.Barrier(2)

    def work(number: int) -> None:
        barrier.wait(30)
        stop = time.monotonic() + 30
        while not errors and time.monotonic() < stop:
            try:
                network()
                done[number] += 1
            except RuntimeError as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "already running on another thread" in str(errors[0])
    network()
    np.testing.assert_array_equal(output, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif("thread" in SANITIZED, reason="the thread sanitizer does not follow forks of threads")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_fork_runs_a_network_made_before(threads: int):
    """Its worker threads are not in the child, which starts its own."""
    program = unet(6)
    network, output = program.bind(threads)
    network()
    expected = output.copy()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for _ in range(2):
                output[:] = 0
                network()
                code = 0 if np.array_equal(output, expected) else 2
            del network
            gc.collect()
        finally:
            os._exit(code)
    stop = time.monotonic() + 60
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > stop:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.005)
    assert os.waitstatus_to_exitcode(status) == 0
    network()
    np.testing.assert_array_equal(output, expected)


@pytest.mark.skipif(sys.platform != "linux" or SANITIZED != "", reason="limits the address space")
def test_threads_that_the_system_does_not_start():
    """An error, after which the same network runs once there is room."""
    code = (
        "import resource\n"
        "from kit.engine.corpus import unet\n"
        "network, output = unet(3).bind(256, unet(3).native(1))\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20, resource.RLIM_INFINITY))\n"
        "try: network()\n"
        "except RuntimeError as error: print(error)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "network(); assert (output == unet(3).run()).all()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | IMPORTS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "threads" in done.stdout


def test_a_chain_runs_it_as_python_does():
    results = []
    for native in (True, False):
        chain, network = chain_of(unet(7), threads=1 + native)
        chain.attach(network if native else lambda network=network: network())
        assert chain.advance(100) == 5
        results.append(chain.x.copy())
    np.testing.assert_array_equal(*results)


def test_a_chain_keeps_its_network_alive():
    chain, network = chain_of(unet(7), threads=2)
    chain.attach(network)
    chain.advance(2)
    del network
    gc.collect()
    assert chain.advance(100) == 5
    expected, other = chain_of(unet(7))
    expected.attach(other)
    expected.advance(100)
    np.testing.assert_array_equal(chain.x, expected.x)


def test_a_network_keeps_its_arrays_alive_and_frees_them():
    program = unet(8)
    network, output = program.bind(2)
    network()
    expected = output.copy()
    alive = weakref.ref(program.x), weakref.ref(output)
    del program, output
    gc.collect()
    network()
    assert alive[0]() is not None
    np.testing.assert_array_equal(alive[1](), expected)
    del network
    gc.collect()
    assert alive[0]() is None
    assert alive[1]() is None


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_the_workers_end_with_the_last_owner_of_a_network():
    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = count()
    chain, network = chain_of(unet(9), threads=3)
    chain.attach(network)
    chain.advance(1)
    assert count() == before + 2
    del network
    gc.collect()
    assert count() == before + 2, "the chain has it"
    del chain
    gc.collect()
    assert count() == before


def test_an_error_in_a_chain_comes_out_of_it():
    program = CORPUS["every op"]()
    chain, network = chain_of(program)
    index = np.arange(program.batch, dtype=np.uint64)
    table = StepTable.from_columns(t=[1.0, 0.0], c_in=1.0, q=1.0, a=0.5, b=0.5, s=0.0)
    rows: dict[str, Any] = {"table": table.native, "seeds": index, "images": index}
    chain.attach(network)
    chain.begin(**rows, labels=np.full(program.batch, 99))
    with pytest.raises(IndexError, match="label 99 of image 0"):
        chain.advance(2)
    assert chain.position == 0
    chain.begin(**rows, labels=np.zeros(program.batch, np.int64))
    assert chain.advance(2) == 2


def test_ctrl_c_stops_a_long_chain():
    """No Python runs between the steps: the chain itself looks for signals."""
    code = (
        "import os, signal, threading, time\n"
        "from kit.engine.corpus import unet\n"
        "from kit.engine.chain import chain_of\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "chain, network = chain_of(unet(7), threads=2, rows=10**6)\n"
        "chain.attach(network)\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try: chain.advance(10**6)\n"
        "except KeyboardInterrupt: print('interrupted', 0 < chain.position < 10**6)\n"
        "at = chain.position; assert chain.advance(3) == at + 3, 'the chain goes on'\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | IMPORTS, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "interrupted True", done.stderr
