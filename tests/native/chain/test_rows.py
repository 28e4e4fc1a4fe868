"""Rows that do not call the network, rows that call another one, and rows that keep a known region."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pysdk import _native, noise
from pysdk.diffusion.table import Clip, StepTable

BATCH, SHAPE = 2, (1, 3, 5)
INDEX = np.arange(BATCH, dtype=np.uint64)
STATE = (BATCH, *SHAPE)
ONES = np.ones(BATCH, np.float32)
LABELS = np.array([4, 7])


def begin(chain: _native.Chain, **options: Any) -> None:
    shared = {name: options.pop(name) for name in list(options) if name in ("learned_variance", "init_scale")}
    clip = Clip(options.pop("clip", "none"))
    table = StepTable.from_columns(**options.pop("columns"), clip=clip, **shared)
    chain.begin(table.native, **{"seeds": INDEX, "images": INDEX} | options)


def normal(draw: int) -> np.ndarray:
    return noise.normal(INDEX, INDEX, draw, SHAPE)


def test_a_skipping_row_diffuses_without_the_network():
    calls: list[int] = []
    chain = _native.Chain(batch=BATCH, shape=SHAPE)
    chain.attach(lambda: calls.append(chain.position))
    initial = np.full(STATE, 3, np.float32)
    columns = {"t": [5, 5, 2], "skip": [1, 0, 1], "a": [0.5, 1, 0.25], "s": [0.75, 0, 0], "p": [0, 2, 0]}
    begin(chain, columns=columns, initial=initial, clip="dynamic")
    chain.advance(1)
    assert calls == []
    noised = np.float32(0.5) * initial + np.float32(0.75) * normal(1)
    np.testing.assert_array_equal(chain.x, noised)
    np.testing.assert_array_equal(chain.network_input, noised)
    assert not chain.denoised.any(), "no estimate was made"
    chain.advance(1)
    assert calls == [1]
    denoised = chain.denoised.copy()
    assert denoised.any()
    assert chain.advance(9) == 3
    assert calls == [1]
    np.testing.assert_array_equal(chain.denoised, denoised)
    np.testing.assert_array_equal(chain.x, np.float32(0.25) * noised)


def test_unguided_rows_call_the_conditional_half_alone():
    calls: list[str] = []
    chain = _native.Chain(batch=BATCH, shape=SHAPE, guided=True)

    def denoise() -> None:
        calls.append("both")
        chain.network_output[:BATCH], chain.network_output[BATCH:] = 2, 1

    def conditional() -> None:
        calls.append("conditional")
        chain.network_output[:BATCH], chain.network_output[BATCH:] = 2, np.nan

    columns = {"t": [3, 2, 1, 0], "q": 1, "b": 1, "unguided": [1, 0, 0, 1]}
    expected = [2.0, 4.0, 4.0, 2.0]
    for networks, called in [
        ({"conditional": conditional}, ["conditional", "both", "both", "conditional"]),
        ({}, ["both"] * 4),
    ]:
        calls.clear()
        chain.attach(denoise, **networks)
        begin(chain, columns=columns, labels=LABELS, guidance=3 * ONES)
        assert [float(chain.x.max()) for k in range(1, 5) if chain.advance(1) == k] == expected
        assert calls == called


def test_the_classifier_is_called_where_its_gradient_counts():
    calls: list[tuple[int, list[int]]] = []
    chain = _native.Chain(batch=BATCH, shape=SHAPE, classifier=True)

    def classify() -> None:
        calls.append((chain.position, chain.network_labels.tolist()))
        chain.classifier_gradient[:] = 8

    def denoise() -> None:
        chain.network_output[:] = 1

    chain.attach(denoise, classifier=classify)
    columns = {"t": [2, 1, 0], "q": 1, "b": 1, "grad": [0, 0.5, 0]}
    begin(chain, columns=columns, labels=LABELS, classifier_scale=np.array([0, 3], np.float32))
    assert chain.advance(2) == 2
    assert calls == [(1, [4, 7])]
    np.testing.assert_array_equal(chain.x[:, 0, 0, 0], [1, 1 + 0.5 * (3 * 8)])


def test_the_known_region_has_draws_of_its_own():
    chain = _native.Chain(batch=BATCH, shape=SHAPE)
    chain.attach(lambda: None)
    known = np.random.default_rng(0).normal(size=STATE).astype(np.float32)
    keep = np.zeros(STATE, np.uint8)
    keep[:, :, 1] = 1
    columns = {"t": [2, 1], "s": 1, "known": [0.6, 1], "known_noise": [0.8, 0]}
    begin(chain, columns=columns, known=known, keep=keep)
    chain.advance(1)
    noised = np.float32(0.6) * known + np.float32(0.8) * normal(noise.KNOWN)
    np.testing.assert_array_equal(chain.x, np.where(keep, noised, normal(1)))
    chain.advance(1)
    np.testing.assert_array_equal(chain.x, np.where(keep, known, normal(2)))
    last = chain.x.copy()

    asked: list[int] = []

    def foreign(draw: int) -> np.ndarray:
        asked.append(draw)
        return normal(draw)

    begin(chain, columns=columns, known=known, keep=keep, noise=foreign)
    chain.advance(2)
    assert asked == [0, 1, noise.KNOWN, 2]
    np.testing.assert_array_equal(chain.x, last)


@pytest.mark.parametrize(
    ("made", "columns", "options", "message"),
    [
        ({}, {"grad": 1}, {}, "the column grad is used but the chain has no classifier; make it with classifier=True"),
        ({}, {}, {"classifier_scale": ONES}, "classifier_scale is given but the chain has no classifier"),
        ({"classifier": True}, {}, {}, "classifier_scale is None; a chain with a classifier needs one per image"),
        ({"classifier": True}, {}, {"classifier_scale": ONES * np.inf}, "classifier_scale holds NaN or infinity"),
        ({"classifier": True}, {}, {"classifier_scale": np.ones(3, np.float32)}, r"classifier_scale has shape \(3,\)"),
        ({}, {"known": 1}, {}, "the columns known and known_noise are used but known and keep are None"),
        ({}, {}, {"known": np.zeros(STATE, np.float32)}, "known and keep belong together; one of them is None"),
        (
            {},
            {},
            {"known": np.zeros(STATE, np.float32), "keep": np.zeros(STATE, np.uint8)},
            "known and keep are given but no row of the table uses them",
        ),
        ({}, {"known": 1}, {"known": np.zeros(SHAPE, np.float32)}, r"known has shape \(1, 3, 5\); \(2, 1, 3, 5\)"),
    ],
)
def test_begin_errors(made: dict[str, Any], columns: dict[str, Any], options: dict[str, Any], message: str):
    chain = _native.Chain(batch=BATCH, shape=SHAPE, **made)
    with pytest.raises(ValueError, match=message):
        begin(chain, columns={"t": [1.0], "b": 1.0, **columns}, **options)
    assert chain.length == 0


def test_raw_rows_are_checked_too():
    rows = StepTable.from_columns(t=[1.0], skip=1.0).float32()
    for column, value, message in [
        (2, 1.0, "row 0, column p is 1; it must be 0 where skip is 1"),
        (14, 2.0, "column skip is 2; it must be 0 or 1"),
        (15, 0.5, "column unguided is 0.5"),
    ]:
        bad = rows.copy()
        bad[0, column] = value
        with pytest.raises(ValueError, match=message):
            _native.StepTable(bad)


def test_attach_errors():
    chain = _native.Chain(batch=BATCH, shape=SHAPE)
    with pytest.raises(ValueError, match="conditional is given but the chain is not guided; make it with guided=True"):
        chain.attach(lambda: None, conditional=lambda: None)
    with pytest.raises(ValueError, match="classifier is given but the chain has none; make it with classifier=True"):
        chain.attach(lambda: None, classifier=lambda: None)
    with pytest.raises(ValueError, match="the chain has no classifier"):
        _ = chain.classifier_gradient
    chain = _native.Chain(batch=BATCH, shape=SHAPE, classifier=True)
    chain.attach(lambda: None)
    begin(chain, columns={"t": [1.0], "b": 1.0}, classifier_scale=ONES)
    with pytest.raises(RuntimeError, match="the chain has no classifier; give one to attach"):
        chain.advance(1)


FORKED = """
import os, numpy as np
from pysdk import _native
from pysdk.diffusion.table import StepTable
chain = _native.Chain(batch=4, shape=(3, 64, 64), threads=3)
chain.attach(lambda: None)
table = StepTable.from_columns(t=np.zeros(4), a=0.5, s=1.0).native
index = np.arange(4, dtype=np.uint64)
chain.begin(table, seeds=index, images=index)
chain.advance(2)  # the pool has started
child = os.fork()
chain.advance(4)
digest = hash(chain.x.tobytes()) & 0xFF
if child == 0:
    del chain
    os._exit(digest)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == digest
print("same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif("thread" in os.environ.get("PYSDK_SANITIZE", ""), reason="tsan does not start threads after a fork")
def test_a_chain_goes_on_in_a_forked_child():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.returncode) == ("same", 0), done.stderr
