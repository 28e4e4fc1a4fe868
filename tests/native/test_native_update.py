"""The update: C++, the numpy twin and torch (written from the contract) give the same bits for the same output."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pysdk import _native, noise
from pysdk.diffusion import numpy_chain as reference
from pysdk.diffusion.table import STEP_COLUMNS, Clip, StepTable

Float = NDArray[np.float32]


@dataclass
class Case:
    """A random table, network outputs for each row, and the arguments of one chain."""

    table: StepTable
    shape: tuple[int, int, int]
    outputs: Float  # (K, NB, out_channels, H, W)
    seeds: NDArray[np.uint64]
    images: NDArray[np.uint64]
    labels: NDArray[np.int64]
    guidance: Float | None
    initial: Float | None
    gradients: Float | None = None  # (K, batch, C, H, W)
    classifier_scale: Float | None = None
    known: Float | None = None
    keep: NDArray[np.bool_] | None = None

    @property
    def batch(self) -> int:
        return len(self.seeds)

    def chain(self, threads: int = 1) -> tuple[_native.Chain, list[Float]]:
        """Return a chain that has begun, and the network inputs it will show."""
        chain = _native.Chain(
            batch=self.batch,
            shape=self.shape,
            out_channels=self.outputs.shape[2],
            guided=self.guidance is not None,
            classifier=self.gradients is not None,
            threads=threads,
        )
        network_input, network_time, network_output = chain.network_input, chain.network_time, chain.network_output
        inputs: list[Float] = []

        def denoise() -> None:
            assert not self.table.column("skip")[chain.position]
            assert network_time[0] == np.float32(self.table.column("t")[chain.position])
            inputs.append(network_input.copy())
            network_output[:] = self.outputs[chain.position]

        def classify() -> None:
            assert self.gradients is not None
            chain.classifier_gradient[:] = self.gradients[chain.position]

        chain.attach(denoise, classifier=None if self.gradients is None else classify)
        chain.begin(
            self.table.native,
            seeds=self.seeds,
            images=self.images,
            labels=self.labels,
            guidance=self.guidance,
            classifier_scale=self.classifier_scale,
            initial=self.initial,
            known=self.known,
            keep=None if self.keep is None else self.keep.astype(np.uint8) * 3,
        )
        return chain, inputs

    def reference(self) -> tuple[reference.State, list[Float]]:
        inputs: list[Float] = []
        rows = iter(np.flatnonzero(self.table.column("skip") == 0))
        rows_with_gradient = iter(np.flatnonzero(self.table.column("grad")))

        def denoise(x: Float, _t: np.float32, labels: NDArray[np.int64]) -> Float:
            assert labels[: self.batch].tolist() == self.labels.tolist()
            inputs.append(x)
            return self.outputs[next(rows)]

        def classify(_x: Float, _t: np.float32, labels: NDArray[np.int64]) -> Float:
            assert labels.tolist() == self.labels.tolist()
            assert self.gradients is not None
            return self.gradients[next(rows_with_gradient)]

        state = reference.run(
            self.table,
            denoise,
            shape=self.shape,
            seeds=self.seeds,
            images=self.images,
            labels=self.labels,
            guidance=self.guidance,
            classifier=classify,
            classifier_scale=self.classifier_scale,
            initial=self.initial,
            known=self.known,
            keep=self.keep,
        )
        return state, inputs


def make_case(
    rng: np.random.Generator,
    *,
    batch: int = 2,
    shape: tuple[int, int, int] = (1, 5, 7),
    rows: int = 4,
    clip: Clip | None = None,
    learned_variance: bool = False,
    guided: bool = False,
    initial: bool = False,
    skips: bool = False,
    classifier: bool = False,
    known: bool = False,
    zeros: float = 0.3,
) -> Case:
    columns = {name: rng.normal(size=rows) * (rng.random(rows) >= zeros) for name in STEP_COLUMNS}
    columns["t"] = rng.integers(0, 1000, rows)[::-1].astype(np.float64)
    columns["save"] = (rng.random(rows) < 0.5).astype(np.float64)
    columns["unguided"] = (rng.random(rows) < 0.3).astype(np.float64)
    columns["skip"] = ((rng.random(rows) < 0.4) & skips).astype(np.float64)
    for name in ("p", "q", "b", "h", "grad"):
        columns[name] *= columns["skip"] == 0
    columns["grad"] *= classifier
    for name in ("known", "known_noise"):
        columns[name] *= known
    known = bool(np.any(columns["known"]) or np.any(columns["known_noise"]))
    if learned_variance:
        columns["s"] = np.where(columns["skip"] == 1, columns["s"], rng.random(rows) < 0.7)
    table = StepTable.from_columns(
        **columns,
        clip=clip,
        learned_variance=learned_variance,
        init_scale=float(rng.choice([1.0, 0.0, 14.6])),
    )
    out_channels = shape[0] * (2 if learned_variance or rng.random() < 0.3 else 1)
    network_batch = 2 * batch if guided else batch
    outputs = rng.normal(size=(rows, network_batch, out_channels, *shape[1:])).astype(np.float32)
    # 0 and 1 are special: the network without guidance, without and with its labels
    scales = np.where(rng.random(batch) < 0.4, rng.integers(0, 2, batch), rng.normal(size=batch))
    guidance = scales.astype(np.float32) if guided else None
    return Case(
        table=table,
        shape=shape,
        outputs=outputs,
        seeds=rng.integers(0, 2**64, batch, dtype=np.uint64),
        images=rng.integers(0, 2**64, batch, dtype=np.uint64),
        labels=rng.integers(0, 10, batch),
        guidance=guidance,
        initial=rng.normal(size=(batch, *shape)).astype(np.float32) if initial else None,
        gradients=rng.normal(size=(rows, batch, *shape)).astype(np.float32) if classifier else None,
        classifier_scale=(rng.normal(size=batch) * (rng.random(batch) < 0.7)).astype(np.float32)
        if classifier
        else None,
        known=rng.normal(size=(batch, *shape)).astype(np.float32) if known else None,
        keep=rng.random((batch, *shape)) < 0.5 if known else None,
    )


def assert_same_bits(got: Float, wanted: Float) -> None:
    """Equal bit for bit, where any NaN equals any other."""
    assert got.dtype == wanted.dtype == np.float32
    assert got.shape == wanted.shape
    both_nan = np.isnan(got) & np.isnan(wanted)
    a, b = np.ascontiguousarray(got).view(np.uint32), np.ascontiguousarray(wanted).view(np.uint32)
    np.testing.assert_array_equal(np.where(both_nan, 0, a), np.where(both_nan, 0, b))


def assert_chain_equals_reference(case: Case, threads: int = 1) -> None:
    chain, inputs = case.chain(threads)
    assert chain.advance(10**6) == len(case.table)
    state, expected_inputs = case.reference()
    assert_same_bits(chain.x, state.x)
    assert_same_bits(chain.denoised, state.d1)
    for got, wanted in zip(inputs, expected_inputs, strict=True):
        assert_same_bits(got, wanted)


CLIPS = st.one_of(
    st.just(Clip.none()),
    st.floats(0.1, 3).map(Clip.clamp),
    st.builds(Clip.dynamic, st.floats(0.01, 1), st.sampled_from([1.0, 1.3, math.inf])),
)


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
    code = "import test_native_update as t; t.run_fixed_cases()"
    folder = os.path.dirname(__file__)  # noqa: PTH120
    made = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYSDK_ISA": isa, "PYTHONPATH": folder},
        capture_output=True,
        check=False,
        text=True,
    )
    if "this machine and build have" in made.stderr:
        pytest.skip(f"no {isa} here")
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == [isa]


def run_fixed_cases() -> None:
    """Compare with the twin in this process; prints the instruction set."""
    rng = np.random.default_rng(11)
    for clip in (Clip.none(), Clip.clamp(0.8), Clip.dynamic(0.9)):
        for learned_variance in (False, True):
            options = {"clip": clip, "learned_variance": learned_variance, "zeros": 0.1}
            options |= {"skips": True, "classifier": True, "known": True}
            assert_chain_equals_reference(
                make_case(rng, batch=3, shape=(3, 19, 23), guided=learned_variance, **options)
            )
    print(_native.isa())


# A third implementation, in torch, written from docs/architecture.md alone.


def torch_clamp(v: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.where(v < low, low, torch.where(v > high, high, v))


def torch_sum(terms: Sequence[tuple[float, torch.Tensor]], like: torch.Tensor) -> torch.Tensor:
    kept = [torch.tensor(c, dtype=torch.float32) * v for c, v in terms if c != 0]
    total = kept[0] if kept else torch.zeros_like(like)
    for term in kept[1:]:
        total = total + term
    return total


def torch_estimate(case: Case, k: int, row: dict[str, float], x: torch.Tensor) -> torch.Tensor:
    """r, with both kinds of guidance."""
    f = torch.from_numpy(case.outputs[k])[:, : case.shape[0]]
    if case.guidance is not None:
        f, f_u = f.chunk(2)
        w = torch.from_numpy(case.guidance)[:, None, None, None]
        if row["unguided"] == 0:
            f = torch.where(w == 0, f_u, torch.where(w == 1, f, f_u + w * (f - f_u)))
    terms = [(row["p"], x), (row["q"], f)]
    r = torch_sum(terms, x)
    if row["grad"] == 0:
        return r
    assert case.gradients is not None
    assert case.classifier_scale is not None
    scale = torch.from_numpy(case.classifier_scale)[:, None, None, None]
    shifted = torch_sum([*terms, (row["grad"], scale * torch.from_numpy(case.gradients[k]))], x)
    return torch.where(scale == 0, r, shifted)


def torch_run(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    def draw(number: int) -> torch.Tensor:
        return torch.from_numpy(noise.normal(case.seeds, case.images, number, case.shape))

    table, batch, channels = case.table, case.batch, case.shape[0]
    init = float(np.float32(table.init_scale))
    z0 = draw(0)
    x = torch_sum([(init, z0)], z0) if case.initial is None else torch.from_numpy(case.initial)
    d1, d2, y = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
    for k, values in enumerate(table.float32()):
        row = dict(zip(STEP_COLUMNS, values.tolist(), strict=True))
        v = torch.from_numpy(case.outputs[k])[:batch, channels:]
        r = torch_estimate(case, k, row, x)
        denoised = r
        if table.clip.kind == "clamp":
            limit = torch.tensor(table.clip.limit, dtype=torch.float32)
            denoised = torch_clamp(r, -limit, limit)
        elif table.clip.kind == "dynamic":
            sorted_abs = r.abs().flatten(1).sort(dim=1).values
            position = table.clip.ratio * (sorted_abs.shape[1] - 1)
            low = math.floor(position)
            high = min(low + 1, sorted_abs.shape[1] - 1)
            fraction = torch.tensor(position - low, dtype=torch.float32)
            q = sorted_abs[:, low] + fraction * (sorted_abs[:, high] - sorted_abs[:, low])
            top = torch.tensor(table.clip.max_threshold, dtype=torch.float32)
            threshold = torch.minimum(torch.maximum(q, torch.ones(())), top)[:, None, None, None]
            denoised = torch_clamp(r, -threshold, threshold) / threshold
        z = x
        if row["s"] != 0:
            z = draw(k + 1)
            if table.learned_variance and row["skip"] == 0:
                mix = (v + 1) * 0.5
                mixed = mix * row["log_beta"] + (1 - mix) * row["log_beta_tilde"]
                z = torch.from_numpy(noise.exp((0.5 * mixed).numpy())) * z
        terms = [(row["a"], x), (row["b"], denoised), (row["h"], r), (row["c1"], d1), (row["c2"], d2)]
        new = torch_sum([*terms, (row["g"], y), (row["s"], z)], x)
        if case.known is not None and (row["known"] != 0 or row["known_noise"] != 0):
            known = torch.from_numpy(case.known)
            noised = torch_sum([(row["known"], known), (row["known_noise"], draw(2**31 + k))], known)
            new = torch.where(torch.from_numpy(case.keep), noised, new)
        if row["save"]:
            y = x
        x, d1, d2 = (new, d1, d2) if row["skip"] else (new, denoised, d1)
    return x, d1


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    clip=CLIPS,
    learned_variance=st.booleans(),
    guided=st.booleans(),
    skips=st.booleans(),
    classifier=st.booleans(),
    known=st.booleans(),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    rows=st.integers(1, 5),
)
def test_chain_equals_torch(seed: int, **options: Any):
    case = make_case(np.random.default_rng(seed), **options)
    chain, _ = case.chain()
    chain.advance(len(case.table))
    x, d1 = torch_run(case)
    assert_same_bits(chain.x, x.numpy())
    assert_same_bits(chain.denoised, d1.numpy())


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
    state = reference.State.start(np.array([[[[4.0, -8.0]]]], np.float32))
    f = np.array([[[[1.0, 3.0]]]], np.float32)
    after = reference.advance_row(table.rows[0], state, f, clip=Clip.clamp(3.0))
    np.testing.assert_array_equal(after.d1, [[[[2.0, 3.0]]]])
    np.testing.assert_array_equal(after.x, [[[[2.5, -3.25]]]])
