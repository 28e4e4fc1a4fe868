"""The chain as an object: buffers, what the network sees, and what is refused."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from typing import Any

import numpy as np
import pytest
from kit.small_chain import BATCH, INDEX, ROWS, SHAPE, begin, make_chain

from pysdk import _native, noise


def test_buffers_are_aligned_and_never_move():
    chain = make_chain(batch=3, shape=(2, 3, 5), out_channels=4, guided=True)
    names = ["network_input", "network_time", "network_labels", "network_output", "x", "denoised"]
    views = {name: getattr(chain, name) for name in names}
    assert [view.shape for view in views.values()] == [
        (6, 2, 3, 5), (1,), (6,), (6, 4, 3, 5), (3, 2, 3, 5), (3, 2, 3, 5)
    ]  # fmt: skip
    assert [view.dtype for view in views.values()] == [np.float32, np.float32, np.int64] + [np.float32] * 3
    begin(chain, seeds=np.zeros(3, np.uint64), images=np.arange(3, dtype=np.uint64), labels=np.arange(3),
          guidance=np.ones(3, np.float32))  # fmt: skip
    chain.advance(2)
    for name, view in views.items():
        assert view.ctypes.data % 64 == 0, name
        assert view.ctypes.data == getattr(chain, name).ctypes.data, name
        assert view.flags.c_contiguous
        assert view.flags.writeable == name.startswith("network"), name


def test_views_outlive_the_chain():
    chain = make_chain()
    begin(chain)
    view, copy = chain.x, chain.x.copy()
    del chain
    gc.collect()
    np.testing.assert_array_equal(view, copy)


def test_a_chain_and_its_denoiser_are_collected():
    class Denoise:
        def __init__(self, chain: _native.Chain):
            self.chain, self.output = chain, chain.network_output

        def __call__(self) -> None:
            self.output[:] = self.chain.network_input

    chain = _native.Chain(batch=BATCH, shape=SHAPE)
    denoise = Denoise(chain)
    alive = weakref.ref(denoise)
    chain.attach(denoise)
    del chain, denoise
    gc.collect()
    assert alive() is None


def test_what_the_network_sees():
    chain = make_chain(guided=True)
    seen: list[tuple[float, list[int]]] = []

    def denoise() -> None:
        np.testing.assert_array_equal(chain.network_input[:BATCH], np.float32(0.5) * chain.x)
        np.testing.assert_array_equal(chain.network_input[BATCH:], np.float32(0.5) * chain.x)
        seen.append((float(chain.network_time[0]), chain.network_labels.tolist()))

    chain.attach(denoise)
    begin(chain, labels=np.array([4, 7]), null_label=10, guidance=np.ones(BATCH, np.float32))
    assert chain.advance(10) == chain.position == chain.length == 4
    assert seen == [(t, [4, 7, 10, 10]) for t in (3.0, 2.0, 1.0, 0.0)]
    assert chain.advance(1) == 4, "a finished chain stays finished"


def test_without_labels_all_are_the_null_label():
    chain = make_chain()
    begin(chain, null_label=-1)
    assert chain.network_labels.tolist() == [-1, -1]


def test_foreign_noise_is_asked_for_by_draw_number():
    draws: list[int] = []

    def foreign(draw: int) -> np.ndarray:
        draws.append(draw)
        return noise.normal(INDEX, INDEX, draw, SHAPE)

    philox, copied = make_chain(), make_chain()
    begin(philox)
    begin(copied, noise=foreign)
    for chain in (philox, copied):
        chain.advance(4)
    assert draws == [0, 1, 2, 3], "row 3 has s = 0 and draws nothing"
    np.testing.assert_array_equal(philox.x, copied.x)
    draws.clear()
    begin(copied, noise=foreign, initial=np.zeros((BATCH, *SHAPE), np.float32))
    assert draws == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch": 0}, ValueError, "batch is 0; it must be between 1 and"),
        ({"batch": -1}, ValueError, "batch is -1"),
        ({"shape": (1, 28)}, ValueError, r"shape has 2 sizes; \(channels, height, width\)"),
        ({"shape": (1, 0, 28)}, ValueError, "height is 0"),
        ({"shape": (1, 2**62, 28)}, ValueError, "height is 4611686018427387904; it must be between"),
        ({"batch": 2**20, "shape": (2**20, 2**20, 2**20)}, ValueError, "more than 2\\^33 elements"),
        ({"batch": 2**17, "shape": (1, 256, 256), "guided": True}, ValueError, "use a smaller batch or shape"),
        ({"out_channels": 3}, ValueError, "out_channels is 3; for 1 channels"),
        ({"threads": 0}, ValueError, "threads is 0"),
        ({"threads": 10**6}, ValueError, "threads is 1000000"),
        ({"batch": 2**70}, TypeError, "incompatible .* arguments"),
    ],
)
def test_constructor_errors(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make_chain(**options)


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are Linux's")
@pytest.mark.skipif("PYSDK_SANITIZE" in os.environ, reason="sanitizers need the address space")
def test_memory_error():
    code = (
        "import resource; from pysdk import _native\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
        "try: _native.Chain(batch=2**10, shape=(1, 1024, 2048))\n"
        "except MemoryError: print('MemoryError')"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "MemoryError"


FLOAT32 = np.zeros((BATCH, *SHAPE), np.float32)


def table_with(column: int, value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[1, column] = value
    return rows


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"rows": ROWS.astype(np.float64)},
            TypeError,
            r"rows has dtype float64; convert it with .astype\(numpy.float32\)",
        ),
        ({"rows": ROWS.tolist()}, TypeError, "rows is a list; a numpy array of float32"),
        ({"rows": ROWS[:, :-1]}, ValueError, r"rows has shape \(4, 18\); \(-1, 19\) is needed, where -1 is any size"),
        ({"rows": ROWS[:0]}, ValueError, "the table has 0 rows; a chain has 1 to 16777216"),
        ({"rows": table_with(4, np.nan)}, ValueError, "row 1, column a is nan; it must be finite as float32"),
        ({"rows": table_with(13, 0.5)}, ValueError, "row 1, column save is 0.5"),
        ({"clip": "soft"}, ValueError, "clip is 'soft'; use 'none', 'clamp' or 'dynamic'"),
        ({"clip_limit": 0.0}, ValueError, "clip_limit must be"),
        ({"clip_limit": float("nan")}, ValueError, "clip_limit must be"),
        ({"clip_ratio": 1.01}, ValueError, "clip_ratio must lie in"),
        ({"clip_max": 0.5}, ValueError, "clip_max must be at least 1"),
        ({"init_scale": float("inf")}, ValueError, "init_scale is not finite"),
        ({"learned_variance": True}, ValueError, "learned_variance needs out_channels=2; the chain was made with 1"),
        ({"table": None}, TypeError, "incompatible .* arguments"),
        ({"seeds": INDEX.astype(np.int64)}, TypeError, "seeds has dtype int64"),
        ({"seeds": INDEX[:1]}, ValueError, r"seeds has shape \(1,\); \(2,\) is needed"),
        ({"images": np.arange(3, dtype=np.uint64)}, ValueError, r"images has shape \(3,\)"),
        ({"labels": np.zeros(2, np.int32)}, TypeError, "labels has dtype int32"),
        ({"guidance": np.ones(2, np.float32)}, ValueError, "guidance is given but the chain is not guided"),
        ({"initial": FLOAT32[:1]}, ValueError, r"initial has shape \(1, 1, 3, 5\); \(2, 1, 3, 5\) is needed"),
        ({"initial": FLOAT32.astype(np.float16)}, TypeError, "initial has dtype float16"),
        ({"noise": lambda _draw: FLOAT32[0]}, ValueError, r"the array returned by noise has shape \(1, 3, 5\)"),
        ({"noise": lambda _draw: FLOAT32.astype(float)}, TypeError, "returned by noise has dtype float64"),
        ({"noise": lambda _draw: None}, TypeError, "returned by noise is a NoneType"),
        ({"noise": lambda draw: 1 // draw}, ZeroDivisionError, "division"),
        ({"noise": 3}, TypeError, "incompatible .* arguments"),
    ],
)
def test_begin_errors_leave_the_chain_as_it_was(options: dict[str, Any], error: type[Exception], message: str):
    chain = make_chain()
    begin(chain)
    chain.advance(1)
    before = chain.x.copy()
    with pytest.raises(error, match=message):
        begin(chain, **options)
    assert (chain.position, chain.length) == (1, 4)
    np.testing.assert_array_equal(chain.x, before)
    assert chain.advance(9) == 4


def test_any_memory_layout_is_taken():
    ordered, strided = make_chain(), make_chain()
    begin(ordered, rows=ROWS[::2].copy())
    odd = np.frombuffer(b"." + INDEX.tobytes(), np.uint64, offset=1)
    assert not odd.flags.aligned
    begin(strided, rows=ROWS[::2], seeds=np.repeat(INDEX, 3)[::3], images=odd)
    assert ordered.advance(9) == strided.advance(9) == 2
    np.testing.assert_array_equal(ordered.x, strided.x)


def test_guided_chains_need_labels_and_guidance():
    chain = make_chain(guided=True)
    with pytest.raises(ValueError, match="labels is None; a guided chain needs one per image"):
        begin(chain, guidance=np.ones(2, np.float32))
    with pytest.raises(ValueError, match="guidance is None"):
        begin(chain, labels=np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="guidance holds NaN"):
        begin(chain, labels=np.zeros(2, np.int64), guidance=np.array([1, np.nan], np.float32))


def test_advance_errors():
    chain = _native.Chain(batch=BATCH, shape=SHAPE)
    with pytest.raises(RuntimeError, match="call begin first"):
        chain.advance(1)
    begin(chain)
    with pytest.raises(RuntimeError, match="call attach first"):
        chain.advance(1)
    chain.attach(lambda: None)
    with pytest.raises(ValueError, match="count is -1"):
        chain.advance(-1)
    with pytest.raises(TypeError):
        chain.attach(3)  # type: ignore[arg-type]
