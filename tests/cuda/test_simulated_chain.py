"""The device chain on a simulated device: its own kernels, graphs and branches, bit for bit as the numpy twin.

Only the driver's calls are imitated here (see csrc/testing/simulated_device.h); tests/gpu has what needs a real one.
"""

from __future__ import annotations

import gc
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.chain_cases import CLIPS, assert_same_bits, make_case
from kit.cuda.device_cases import begin, play

from pysdk import _testing, images, noise
from pysdk.diffusion.table import Clip
from pysdk.request.guidance import with_columns

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
    known=st.booleans(),
    zeros=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    path=st.sampled_from(PATHS),
    half=st.booleans(),
)
def test_chain_equals_the_numpy_twin(seed: int, path: str, half: bool, **options: Any):
    case = make_case(np.random.default_rng(seed), **options)
    played = play(_testing.SimulatedDevice(), case, path, half=half and case.guidance is not None)
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
    played = play(_testing.SimulatedDevice(), case, path)
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
        case.table = with_columns(case.table, p=np.zeros(2))  # r is q times the output alone
        played = play(_testing.SimulatedDevice(), case, "while")
        played.chain.advance(2)
        played.assert_equals_reference()


def test_the_whole_chain_is_one_launch_of_a_loop():
    device = _testing.SimulatedDevice()
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
        *["instantiate", "launch"],
    ]
    begin(played.chain, case)
    device.clear_log()
    played.chain.advance(5)
    assert device.log == ["launch"], "another request runs on the same graph"
    played.assert_equals_reference()


def test_a_request_is_handed_over_in_few_copies():
    """Labels, the small arrays behind each other, and what the kernels begin from."""
    device = _testing.SimulatedDevice()
    played = play(device, make_case(np.random.default_rng(1), rows=5, guided=True))
    device.clear_log()
    begin(played.chain, played.case)
    assert device.log == ["synchronize", *["upload"] * 3, "start", "synchronize"]


def test_networks_that_only_some_rows_call_sit_in_branches():
    device = _testing.SimulatedDevice()
    case = make_case(np.random.default_rng(4), rows=6, guided=True, skips=True)
    played = play(device, case, half=True)
    assert {name.split()[0] for name in played.expected_calls()} == {"full", "half"}
    device.clear_log()
    played.chain.advance(6)
    made = device.log[device.log.index("make_graph") :]
    branch = [["add_if", "begin_capture", f"> {name}", "end_capture"] for name in ("full", "half")]
    assert made == [
        *["make_graph", "make_condition", "add_while"],
        *["make_condition"] * 2,
        *["begin_capture", "> prepare", "end_capture"],
        *(call for calls in branch for call in calls),
        *["begin_capture", "> update", "> advance", "end_capture"],
        *["instantiate", "launch"],
    ]
    played.assert_equals_reference()


def test_step_launches_a_graph_per_row_and_plain_none():
    for path, name in (("step", "launch"), ("plain", "update")):
        device = _testing.SimulatedDevice()
        played = play(device, make_case(np.random.default_rng(1), rows=5), path)
        device.clear_log()
        played.chain.advance(5)
        assert device.log.count(name) == 5
        assert device.log.count("instantiate") == (1 if path == "step" else 0)


def test_a_chain_may_be_run_in_pieces():
    case = make_case(np.random.default_rng(6), rows=6)
    for path in PATHS:
        played = play(_testing.SimulatedDevice(), case, path)
        assert [played.chain.advance(count) for count in (1, 0, 3, 99)] == [1, 1, 4, 6]
        played.assert_equals_reference()


@pytest.mark.parametrize("path", ["auto", "step", "plain"])
def test_foreign_noise_is_asked_for_row_by_row(path: str):
    case = make_case(np.random.default_rng(8), rows=4, known=True, zeros=0.0)
    asked = []

    def draw(number: int) -> Any:
        asked.append(number)
        return noise.normal(case.seeds, case.images, number, case.shape)

    played = play(_testing.SimulatedDevice(), case, path)
    begin(played.chain, case, noise=draw)
    played.chain.advance(99)
    assert played.chain.path == ("step" if path == "auto" else path)
    assert ("noise" in played.chain.why) == (path == "auto")
    assert asked == [0] + [draw for k in range(4) for draw in (1 + k, 2**31 + k)]
    played.assert_equals_reference()
    with pytest.raises(ValueError, match="path is 'while', but noise"):
        begin(play(_testing.SimulatedDevice(), case, "while").chain, case, noise=draw)


@pytest.mark.parametrize("path", PATHS)
def test_snapshots_are_the_chain_on_its_way(path: str):
    case = make_case(np.random.default_rng(9), rows=7, skips=True)
    wanted = play(_testing.SimulatedDevice(), case, path).chain
    played = play(_testing.SimulatedDevice(), case, path)
    played.chain.keep_snapshots(2, 3)
    begin(played.chain, case)
    for until, readable in ((5, [2, 4]), (7, [4, 6, 7])):
        played.chain.advance(until - played.chain.position)
        for row in readable:
            wanted_at = play(_testing.SimulatedDevice(), case, path).chain
            wanted_at.advance(row)
            assert_same_bits(played.chain.snapshot(row), wanted_at.x.numpy())
            assert_same_bits(played.chain.snapshot(row, denoised=True), wanted_at.denoised.numpy())
    for row, reason in ((2, "written over"), (3, "no snapshot"), (0, "no snapshot"), (8, "no snapshot")):
        with pytest.raises(ValueError, match=reason):
            played.chain.snapshot(row)
    with pytest.raises(ValueError, match="no snapshot"):
        wanted.snapshot(1)


def test_bytes_are_those_of_the_host():
    device = _testing.SimulatedDevice()
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
    device = _testing.SimulatedDevice()
    case = make_case(np.random.default_rng(1), batch=2, rows=2)
    played = play(device, case)
    played.chain.advance(2)
    x, result = played.chain.x, device.empty((5, *case.shape), "float32")
    wanted = x.numpy()
    played.chain.copy_x(result, first=3, images=2)
    view = np.from_dlpack(x)
    assert view.ctypes.data == x.pointer == torch.from_dlpack(x).data_ptr()
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
