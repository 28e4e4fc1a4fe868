"""The native bound: its float64 terms against scipy, far into the tails, and what it refuses."""

import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_ndtr

from pysdk import _native, noise

SHAPE = (1, 2, 3)
COLUMNS = _native.BOUND_COLUMNS
FORWARD_DRAWS = 0xF0000000


def rows(**columns: Any) -> NDArray[np.float64]:
    """Rows that take the network's output for x_0 and have unit variances, changed in some columns."""
    plain: dict[str, Any] = {"signal": 1.0, "q": 1.0, "from_x0": 1.0, **columns}
    arrays = np.broadcast_arrays(*[np.asarray(plain.get(name, 0.0), np.float64) for name in COLUMNS])
    return np.atleast_2d(np.stack(arrays, axis=-1))


def begin(bound: _native.Bound, table: NDArray[np.float64], **changes: Any) -> None:
    images = np.arange(2, dtype=np.uint64)
    plain = {"pixels": np.zeros((2, *SHAPE), np.uint8), "seeds": images, "images": images, "clip_limit": np.inf}
    bound.begin(table, **{**plain, **changes})


def make(**options: Any) -> _native.Bound:
    bound = _native.Bound(**{"batch": 2, "shape": SHAPE, **options})
    bound.attach(lambda: None)
    return bound


def test_network_input_is_the_forward_diffusion() -> None:
    """x_t = S x_0 + N z, one float32 rounding each, z of draw 0xF0000000 + t."""
    bound = make()
    seen: list[NDArray[np.float32]] = []
    bound.attach(lambda: seen.append(bound.network_input.copy()))
    pixels = np.arange(12, dtype=np.uint8).reshape(2, *SHAPE) * 20
    seeds, images = np.array([3, 2**63], np.uint64), np.array([7, 2**40], np.uint64)
    table = rows(t=[41.0, 7.0], signal=[0.3, 0.9], noise=[0.95, 0.1])
    begin(bound, table, pixels=pixels, seeds=seeds, images=images, value_low=0.0, value_high=2.0)
    assert bound.advance(5) == bound.length == 2
    x0 = (pixels * (2.0 / 255)).astype(np.float32)
    for found, (t, signal_, noise_) in zip(seen, [(41, 0.3, 0.95), (7, 0.9, 0.1)], strict=True):
        z = noise.normal(seeds, images, FORWARD_DRAWS + t, SHAPE)
        assert np.array_equal(found, np.float32(signal_) * x0 + np.float32(noise_) * z)


@pytest.mark.parametrize("log_variance", [0.0, -8.0, -14.0])
def test_decoder_in_the_tails(log_variance: float) -> None:
    """Means up to thousands of deviations away; scipy's log_ndtr on both edges of a bin."""
    bound = make(shape=(1, 1, 1), batch=256)
    levels = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    index = np.zeros(256, np.uint64)
    table = rows(decoder=1.0, log_high=log_variance)
    for mean in (-3.0, -0.9990234375, 0.0, 0.5, 1.0, 4.0):
        bound.attach(lambda mean=mean: bound.network_output.fill(mean))  # type: ignore[misc]
        bound.begin(table, pixels=levels, seeds=index, images=index, clip_limit=np.inf)
        bound.advance(1)
        x0, sigma = -1 + levels.ravel() * (2 / 255), np.exp(0.5 * log_variance)
        half = 1 / 255
        low, high = (x0 - half - mean) / sigma, (x0 + half - mean) / sigma
        low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)
        top, bottom = log_ndtr(high), log_ndtr(low)
        expected = -(top + np.log(-np.expm1(bottom - top)))
        expected[0] = -log_ndtr((x0[0] + half - mean) / sigma)
        expected[255] = -log_ndtr(-(x0[255] - half - mean) / sigma)
        np.testing.assert_allclose(bound.terms[:, 0], expected, rtol=1e-9, atol=1e-12)


def test_kl_of_learned_variances() -> None:
    bound = make(out_channels=2)
    pixels = np.full((2, *SHAPE), 255, np.uint8)
    v = np.linspace(-1.5, 1.5, 12, dtype=np.float32).reshape(2, *SHAPE)

    def network() -> None:
        bound.network_output[:, :1] = 0.25
        bound.network_output[:, 1:] = v

    bound.attach(network)
    table = rows(from_x0=0.5, log_posterior=-3.0, log_low=-3.0, log_high=-1.0)
    begin(bound, table, pixels=pixels, learned_variance=True)
    bound.advance(1)
    share = (v.astype(np.float64) + 1) / 2
    variance = np.exp(share * -1.0 + (1 - share) * -3.0)
    kl = 0.5 * (np.log(variance) + 3 - 1 + (np.exp(-3.0) + (0.5 * 0.75) ** 2) / variance)
    np.testing.assert_allclose(bound.terms[:, 0], kl.sum((1, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(bound.errors[:, 0], 6 * 0.75**2, rtol=1e-13)


def test_estimate_is_clamped() -> None:
    bound = make()
    bound.attach(lambda: bound.network_output.fill(-7.0))
    begin(bound, rows(), clip_limit=1.25)
    bound.advance(1)
    np.testing.assert_allclose(bound.errors[:, 0], 6 * 0.25**2)


def test_failed_row_may_run_again() -> None:
    bound = make()
    failing = [True]

    def network() -> None:
        if failing and bound.network_time[0] == 1.0:
            failing.clear()
            raise RuntimeError("no power")
        bound.network_output.fill(0.5)

    bound.attach(network)
    begin(bound, rows(t=[2.0, 1.0, 0.0]))
    with pytest.raises(RuntimeError, match="no power"):
        bound.advance(3)
    assert bound.position == 1
    assert bound.advance(3) == 3
    assert (bound.errors == 6 * 1.5**2).all()


def test_reentry_is_refused() -> None:
    bound = make()
    calls = [lambda: bound.advance(1), lambda: begin(bound, rows()), lambda: bound.terms]
    for call in calls:
        bound.attach(call)
        begin(bound, rows())
        with pytest.raises(RuntimeError, match="already running"):
            bound.advance(1)


def test_bad_programs_are_refused() -> None:
    bound = make()
    with pytest.raises(RuntimeError, match="call begin first"):
        bound.advance(1)
    begin(bound, rows())
    cases: list[tuple[NDArray[np.float64], dict[str, Any], str]] = [
        (rows()[:0], {}, "rows is empty"),
        (rows()[:, :3], {}, r"rows has shape \(1, 3\)"),
        (rows(p=np.nan), {}, "row 0, column p is not finite"),
        (rows(t=0.5), {}, "column t is 0.5"),
        (rows(t=-1.0), {}, "column t is -1"),
        (rows(t=2.0**24), {}, "below 2\\^24"),
        (rows(), {"pixels": np.zeros((1, *SHAPE), np.uint8)}, r"pixels has shape \(1, 1, 2, 3\)"),
        (rows(), {"seeds": np.zeros(3, np.uint64)}, r"seeds has shape \(3,\)"),
        (rows(), {"images": np.zeros(3, np.uint64)}, r"images has shape \(3,\)"),
        (rows(), {"labels": np.zeros(3, np.int64)}, r"labels has shape \(3,\)"),
        (rows(), {"learned_variance": True}, "learned_variance needs out_channels=2"),
        (rows(), {"clip_limit": 0.0}, "clip_limit must be above 0"),
        (rows(), {"clip_limit": np.nan}, "clip_limit must be above 0"),
        (rows(), {"value_low": 1.0}, "the first below the second"),
    ]
    for table, changes, message in cases:
        with pytest.raises(ValueError, match=message):
            begin(bound, table, **changes)
    with pytest.raises(TypeError, match="pixels has dtype float32"):
        begin(bound, rows(), pixels=np.zeros((2, *SHAPE), np.float32))
    with pytest.raises(ValueError, match="count is -1"):
        bound.advance(-1)
    assert bound.advance(1) == 1  # the program before still stands
    unattached = _native.Bound(batch=2, shape=SHAPE)
    begin(unattached, rows())
    with pytest.raises(RuntimeError, match="no denoiser"):
        unattached.advance(1)
    with pytest.raises(ValueError, match="batch is 0"):
        _native.Bound(batch=0, shape=SHAPE)


INTERRUPTED = """
import numpy as np, sys
from pysdk import _native
bound = _native.Bound(batch=1, shape=(1, 64, 64))
calls = 0
def network():
    global calls
    calls += 1
    if calls == 3: print("ready", flush=True)
bound.attach(network)
rows = np.zeros((200_000, len(_native.BOUND_COLUMNS)))
index = np.zeros(1, np.uint64)
bound.begin(rows, pixels=np.zeros((1, 1, 64, 64), np.uint8), seeds=index, images=index, clip_limit=1.0)
try:
    bound.advance(200_000)
except KeyboardInterrupt:
    assert 0 < bound.position < 200_000
    done = bound.position
    assert bound.advance(3) == done + 3
    print("interrupted", flush=True)
"""


def test_ctrl_c_stops_and_leaves_the_bound_usable() -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "interrupted\n"
        assert child.wait(10) == 0


SIZES = """
import numpy as np
from pathlib import Path
from pysdk import _native
def most_so_far():  # getrusage would tell the parent's
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
given = {"batch": 64, "shape": (3, 128, 128)}
table = np.zeros((40_000, len(_native.BOUND_COLUMNS)))
table[:, 1] = 1
pixels = np.zeros((64, 3, 128, 128), np.uint8)
before = most_so_far()
bound = _native.Bound(**given)
bound.attach(lambda: None)
numbers = np.arange(64, dtype=np.uint64)
for _ in range(2):
    bound.begin(table, pixels=pixels, seeds=numbers, images=numbers, clip_limit=1.0)
    bound.advance(1)
    bound.network_output[:] = 0
found = bound.terms, bound.errors
print(most_so_far() - before, _native.Bound.most_bytes(**given, rows=len(table)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_bound_says_what_it_takes() -> None:
    done = subprocess.run([sys.executable, "-c", SIZES], capture_output=True, text=True, check=True)
    taken, most = (int(number) for number in done.stdout.split())
    assert 0.6 * most < taken < 1.05 * most
    with pytest.raises(ValueError, match="batch"):
        _native.Bound.most_bytes(batch=0, shape=SHAPE, rows=1)
