"""A caller's rounding mode, flush-to-zero and traps change no bit of ours, and are there again afterwards."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from kit.float_states import STATES, bits, draw, is_in_force, mxcsr, on_x86_and_glibc, set_mxcsr, thread_in
from kit.processes import IMPORTS

from pysdk import Sampler, _native, _testing
from pysdk.diffusion.schedule import Schedule
from pysdk.images import to_uint8
from pysdk.solvers import SOLVERS, make_table

pytestmark = on_x86_and_glibc
every_state = pytest.mark.parametrize("state", STATES)
# numpy makes what goes in before a state is set
RNG = np.random.default_rng(0)
SMALL = (RNG.standard_normal((2, 8, 48, 48)) * 1e-39).astype(np.float32)
"""Subnormal images, large enough for every thread to have work."""
KERNEL, BACK = (RNG.standard_normal(shape).astype(np.float32) for shape in [(16, 8, 3, 3), (8, 16, 1, 1)])
PIXELS = RNG.integers(256, size=(2, 3, 48, 48)).astype(np.uint8)
EXPONENTS = np.linspace(-90, 90, 999, dtype=np.float32)
LEVELS = np.linspace(-1, 1, 4 * 5 * 6 * 7, dtype=np.float32).reshape(4, 5, 6, 7)
SCHEDULE = Schedule.cosine(50)


def noise() -> bytes:
    return bits(_testing.normal(3, np.arange(3, dtype=np.uint64), 1, [3, 5, 7]))


def exponential() -> bytes:
    return bits(_testing.exp(EXPONENTS))


def chain(threads: int) -> bytes:
    """Three rows on subnormal numbers; the network, in Python, sets a state of its own."""
    native = _native.Chain(batch=2, shape=SMALL.shape[1:], threads=threads)

    def network() -> None:
        assert mxcsr() == 0x1F80
        native.network_output[:] = native.network_input
        set_mxcsr(STATES["all at once"])

    native.attach(network)
    rows = make_table("ddpm", Schedule.linear(10), steps=3).float32()
    ids = np.arange(2, dtype=np.uint64)
    native.begin(_native.StepTable(rows, clip="dynamic", clip_ratio=0.995), seeds=ids, images=ids, initial=SMALL)
    native.advance(1)
    native.advance(2)
    return bits(native.x)


def engine(threads: int) -> bytes:
    """A convolution, a group norm with SiLU and a direct convolution on subnormal numbers."""
    parts, source = [], b""
    for array in (KERNEL, np.ones(16, np.float32), BACK):
        rows = array.shape[0]
        parts.append((array.shape, [(0, len(source), rows, array.size // rows, False)]))
        source += array.tobytes()
    maps = [(8, 48, 48, False), (16, 48, 48, False), (16, 48, 48, False), (8, 48, 48, False)]
    plain = {"op": "conv", "stride": 1, "upsample": 1}
    ops = [
        {"op": "input", "out": 0},
        plain | {"x": [0], "out": 1, "weight": 0, "pads": [1, 1, 1, 1], "tactic": "winograd4"},
        {"op": "group_norm", "x": [1], "out": 2, "groups": 4, "gamma": 1, "beta": 1, "silu": True, "epsilon": 1e-5},
        plain | {"x": [2], "out": 3, "weight": 2, "pads": [0, 0, 0, 0], "tactic": "direct", "residual": 0},
        {"op": "output", "x": 3},
    ]
    program = _native.Program(
        shape=SMALL.shape[1:], out_channels=8, tensors=maps, weights=parts, ops=ops, sources=[source]
    )
    program.pack(threads=threads)
    output = np.zeros_like(SMALL)
    network = _native.Network(
        program, network_input=SMALL, network_time=np.ones(1, np.float32),
        network_labels=np.zeros(2, np.int64), network_output=output, threads=threads,
    )  # fmt: skip
    network()
    first = bits(output)
    network.profile()
    return first + bits(output)


def bound(threads: int) -> bytes:
    native = _native.Bound(batch=2, shape=(3, 48, 48), threads=threads)
    native.attach(lambda: native.network_output.fill(0.125))
    row = dict.fromkeys(_native.BOUND_COLUMNS, 0.25) | {"t": 1.0, "decoder": 0.0, "log_low": -3.0, "log_high": -1.0}
    rows = np.array([list(row.values()), list((row | {"t": 0.0, "decoder": 1.0}).values())])
    ids = np.arange(2, dtype=np.uint64)
    native.begin(rows, pixels=PIXELS, seeds=ids, images=ids, clip_limit=1.0)
    native.advance(2)
    return bits(native.terms) + bits(native.errors)


def tables() -> bytes:
    made = (make_table(name, SCHEDULE, steps=7) for name in sorted(SOLVERS) if name != "reverse_ddim")
    return b"".join(bits(table.float32()) for table in made)


def conversion() -> bytes:
    return bits(to_uint8(LEVELS, (-1.0, 1.1)))


WORK: dict[str, Callable[[], bytes]] = {
    "noise": noise,
    "exponential": exponential,
    "chain": lambda: chain(1),
    "chain, 3 threads": lambda: chain(3),
    "engine": lambda: engine(1),
    "engine, 3 threads": lambda: engine(3),
    "bound": lambda: bound(1),
    "bound, 3 threads": lambda: bound(3),
    "tables": tables,
    "conversion": conversion,
}


@pytest.fixture(scope="module")
def expected() -> dict[str, bytes]:
    return {name: work() for name, work in WORK.items()}


@pytest.mark.parametrize("state", [state for state in STATES if state != "traps"])
def test_the_states_are_in_force(state: str) -> None:
    assert is_in_force(state)


@pytest.mark.parametrize("name", WORK)
@every_state
def test_same_bits_in_every_state(name: str, state: str, expected: dict[str, bytes]) -> None:
    with thread_in(state):
        found = WORK[name]()
    assert found == expected[name]


@pytest.fixture(scope="module")
def image(conditional_plan: Path) -> bytes:
    with Sampler(conditional_plan, threads=2) as sampler:
        return draw(sampler)


@pytest.mark.slow
@every_state
def test_a_process_in_that_state_from_the_start(conditional_plan: Path, image: bytes, state: str) -> None:
    """Set before numpy and pysdk are imported; traps afterwards, as numpy's own import raises some."""
    program = (
        "import sys; import ctypes, hashlib\n"
        "if sys.argv[3] == 'traps': import pysdk, kit.float_states\n"
        "class Fenv(ctypes.Structure): _fields_ = (('x87', ctypes.c_char * 28), ('mxcsr', ctypes.c_uint32))\n"
        "libm, fenv = ctypes.CDLL(None), Fenv(); libm.fegetenv(ctypes.byref(fenv)); fenv.mxcsr = int(sys.argv[2])\n"
        "libm.fesetenv(ctypes.byref(fenv))\n"
        "import pysdk; sampler = pysdk.Sampler(sys.argv[1], threads=2)\n"
        "from kit.float_states import draw, mxcsr\n"
        "assert mxcsr() == int(sys.argv[2]); print(hashlib.sha256(draw(sampler)).hexdigest())\n"
    )
    command = [sys.executable, "-B", "-W", "ignore", "-c", program, conditional_plan, str(STATES[state]), state]
    made = subprocess.run(command, env=os.environ | IMPORTS, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == hashlib.sha256(image).hexdigest()


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_states_change_while_a_sampler_lives(conditional_plan: Path, engine: str) -> None:
    """ONNX Runtime's own threads start in the state of the thread that makes the session, which is ours meanwhile."""
    with Sampler(conditional_plan, engine=engine, threads=2) as sampler:
        expected = draw(sampler)
    with thread_in("all at once"):
        sampler = Sampler(conditional_plan, engine=engine, threads=2)
    with sampler:
        assert draw(sampler) == expected
        with thread_in("flush to zero"):
            assert draw(sampler) == expected
        with thread_in("to zero"):
            found: list[bytes] = []
            other = threading.Thread(target=lambda: found.append(draw(sampler)))  # starts as this one is
            other.start()
            other.join()
        assert found == [expected]


def test_the_state_comes_back_after_an_error(conditional: Sampler) -> None:
    with thread_in("up"), pytest.raises(ValueError, match="no option"):
        conditional.sample(1, nonsense=1)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with thread_in("down"), pytest.raises(KeyboardInterrupt):
        conditional.sample(1, steps=4, progress=stop)


def test_blocks_nest() -> None:
    state, again = _native.FloatState(), _native.FloatState()
    with thread_in("up"), state:
        assert mxcsr() == 0x1F80
        set_mxcsr(STATES["down"])
        with again, again:
            assert mxcsr() == 0x1F80
        assert mxcsr() == STATES["down"]
    with pytest.raises(ValueError, match="not entered"):
        state.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = mxcsr()
    yield
    set_mxcsr(before)
