"""Hashes of everything one numerics version says: `PYTHONPATH=tests python -m kit.hashes PLAN` prints them."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from kit.engine.corpus import CORPUS
from pysdk import Plan, Sampler, _native, _testing
from pysdk.diffusion.schedule import Schedule
from pysdk.solvers import make_table

MEMBERS = ("network.onnx", "native.json", "native.constants")
ALL, SOME = 64, 4


def hash_of(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:32]


def noise() -> str:
    ids = np.array([0, 1, 2**32, 2**64 - 1], np.uint64)
    return hash_of(*(_testing.normal(seed, ids, draw, [3, 5, 7]) for seed in (0, 2**64 - 1) for draw in (0, 1, 2**31)))


def updates() -> dict[str, str]:
    """Chains whose network halves what it reads."""
    found, ids = {}, np.arange(3, dtype=np.uint64)
    for solver, clip in [("ddpm", "dynamic"), ("ddim", "clamp"), ("dpmpp_2m", "none")]:
        chain = _native.Chain(batch=3, shape=(3, 7, 5))

        def halve(chain: Any = chain) -> None:
            np.multiply(chain.network_input, np.float32(0.5), out=chain.network_output)

        chain.attach(halve)
        rows = make_table(solver, Schedule.linear(50), steps=5).float32()
        table = _native.StepTable(rows, clip=clip, clip_limit=1.0, clip_ratio=0.995)
        chain.begin(table, seeds=ids, images=ids)
        chain.advance(len(table))
        found[solver] = hash_of(chain.x)
    return found


def networks() -> dict[str, list[str]]:
    """What goes into each program of the engine's tests, and what comes out."""
    programs = {name: make() for name, make in CORPUS.items()}
    return {name: [hash_of(made.x, made.source), hash_of(made.run())] for name, made in programs.items()}


def members(plan: Path) -> dict[str, str]:
    with Plan.open(plan) as opened:
        return {name: hash_of(bytes(opened.member(name))) for name in MEMBERS}


def images(plan: Path) -> dict[str, str]:
    """Seed 0. All with the defaults where that is quick; the plainest kernels draw one in a few steps."""
    with Sampler(plan, threads=2, batch_size=5) as sampler:
        found = {"1 in 3 steps": hash_of(sampler.sample(1, seed=0, steps=3, output="float32"))}
        if _native.isa() != "baseline":
            found[f"{SOME}"] = hash_of(sampler.sample(SOME, seed=0, output="float32"))
    if _native.isa() != "baseline":
        with Sampler(plan, threads=1) as sampler:
            drawn = sampler.sample(ALL, seed=0, output="float32")
        assert hash_of(drawn[:SOME]) == found[f"{SOME}"], "2 threads and batches of 5, 1 thread and batches of 16"
        found[f"{ALL}"] = hash_of(drawn)
    return found


def everything(plan: Path) -> dict[str, Any]:
    return {
        "noise": noise(),
        "updates": updates(),
        "networks": networks(),
        "members": members(plan),
        "images": images(plan),
    }


if __name__ == "__main__":
    print(json.dumps(everything(Path(sys.argv[1])), indent=1))
