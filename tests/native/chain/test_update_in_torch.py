"""The update in torch, written from docs/architecture.md alone: the native chain gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.chain_cases import CLIPS, Case, assert_same_bits, make_case

from pysdk import noise
from pysdk.diffusion.table import STEP_COLUMNS


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
