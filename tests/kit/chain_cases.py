"""Random chains with what their networks give, and the numpy twin on the same numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pysdk import _native
from pysdk.diffusion import numpy_chain
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

    def reference(self) -> tuple[numpy_chain.State, list[Float]]:
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

        state = numpy_chain.run(
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
