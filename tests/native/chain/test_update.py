"""The update: C++ and the numpy twin give the same bits for the same output."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.chain_cases import CLIPS, Case, assert_chain_equals_reference, assert_same_bits, make_case
from kit.processes import IMPORTS

from pysdk.diffusion import numpy_chain
from pysdk.diffusion.table import Clip, StepTable


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 41), st.integers(1, 41)),
    rows=st.integers(1, 6),
    clip=CLIPS,
    learned_variance=st.booleans(),
    guided=st.booleans(),
    initial=st.booleans(),
    skips=st.booleans(),
    classifier=st.booleans(),
    known=st.booleans(),
    zeros=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    threads=st.integers(1, 4),
)
def test_chain_equals_the_numpy_twin(seed: int, threads: int, **options: Any):
    assert_chain_equals_reference(make_case(np.random.default_rng(seed), **options), threads)


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("clip", [Clip.none(), Clip.dynamic(0.99)], ids=lambda clip: clip.kind)
def test_threads_share_the_work_without_changing_it(threads: int, clip: Clip):
    case = make_case(np.random.default_rng(5), batch=5, shape=(3, 61, 63), rows=3, clip=clip, zeros=0.0)
    assert case.batch * math.prod(case.shape) > 32 * 1024  # the pool is used
    assert_chain_equals_reference(case, threads)


@pytest.mark.parametrize("clip", [Clip.none(), Clip.clamp(), Clip.dynamic(0.9)], ids=lambda clip: clip.kind)
def test_nan_and_infinity_pass_through_alike(clip: Clip):
    case = make_case(np.random.default_rng(0), batch=4, shape=(1, 6, 7), rows=3, clip=clip, zeros=0.0)
    case.outputs[0, 0, 0, 1, 1] = np.nan
    case.outputs[0, 1, 0, 2, 2] = np.inf
    case.outputs[1, 2, 0, 3, 3] = -np.inf
    assert_chain_equals_reference(case)
    state, _ = case.reference()
    assert np.isnan(state.x[0]).any()
    assert np.isfinite(state.x[3]).all(), "an image does not see its neighbours"


def test_a_nan_makes_the_whole_image_nan_under_a_dynamic_threshold():
    case = make_case(np.random.default_rng(0), batch=2, rows=1, clip=Clip.dynamic(0.5), zeros=0.0)
    case.outputs[0, 0, 0, 0, 0] = np.nan
    chain, _ = case.chain()
    chain.advance(1)
    assert np.isnan(chain.denoised[0]).all()
    assert np.isfinite(chain.denoised[1]).all()


@pytest.mark.parametrize("isa", ["avx512", "avx2", "baseline"])
def test_every_instruction_set_gives_the_same_chain(isa: str):
    code = "from kit.chain_cases import run_fixed_cases; run_fixed_cases()"
    made = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | IMPORTS | {"PYSDK_ISA": isa},
        capture_output=True,
        check=False,
        text=True,
    )
    if "this machine and build have" in made.stderr:
        pytest.skip(f"no {isa} here")
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == [isa]


@pytest.mark.parametrize("split", [1, 2, 3])
def test_an_image_is_the_same_in_any_batch(split: int):
    case = make_case(np.random.default_rng(3), batch=6, shape=(3, 11, 13), rows=4, clip=Clip.dynamic(0.9), guided=True)
    whole, _ = case.chain(threads=2)
    whole.advance(4)
    assert case.guidance is not None
    for start in range(0, 6, split):
        part = slice(start, start + split)
        both = np.r_[start : start + split, 6 + start : 6 + start + split]
        piece = Case(
            case.table, case.shape, case.outputs[:, both], case.seeds[part], case.images[part], case.labels[part],
            case.guidance[part], None,
        )  # fmt: skip
        chain, _ = piece.chain()
        chain.advance(4)
        assert_same_bits(chain.x, whole.x[part])


def test_stopping_between_rows_changes_nothing():
    case = make_case(np.random.default_rng(8), rows=6, zeros=0.0)
    once, _ = case.chain()
    once.advance(6)
    stepped, _ = case.chain()
    assert [stepped.advance(count) for count in (1, 0, 2, 10)] == [1, 1, 3, 6]
    assert_same_bits(stepped.x, once.x)


def test_two_term_row_by_hand():
    table = StepTable.from_columns(t=[7.0], p=0.0, q=2.0, a=0.5, b=0.25)
    state = numpy_chain.State.start(np.array([[[[4.0, -8.0]]]], np.float32))
    f = np.array([[[[1.0, 3.0]]]], np.float32)
    after = numpy_chain.advance_row(table.rows[0], state, f, clip=Clip.clamp(3.0))
    np.testing.assert_array_equal(after.d1, [[[[2.0, 3.0]]]])
    np.testing.assert_array_equal(after.x, [[[[2.5, -3.25]]]])
