"""The same bits whatever the batch, the place in it, the number of threads and the instruction set."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_corpus import CORPUS, unet
from engine_programs import Array, Program

SETS = ("baseline", "avx2", "avx512")


def of_images(program: Program, images: Array, threads: int = 1) -> Array:
    """The program on some of its images, in that order."""
    labels = np.arange(program.batch)[images]
    return Program(
        program.x[images], program.out_channels, program.t, labels, program.tensors, program.weights, program.ops,
        program.source,
    ).run(threads)  # fmt: skip


def check_batches_and_threads(program: Program) -> None:
    whole = program.run()
    assert np.isfinite(whole).all()
    for image in range(program.batch):
        np.testing.assert_array_equal(of_images(program, np.array([image]))[0], whole[image])
    order = np.array([3, 0, 0, 2, 4, 1, 2, 3, 3])
    np.testing.assert_array_equal(of_images(program, order, threads=3), whole[order])
    native = program.native()
    for threads in range(2, 9):
        network, output = program.bind(threads, native)
        network()
        np.testing.assert_array_equal(output, whole)


@pytest.mark.parametrize("name", CORPUS)
def test_batches_and_threads(name: str):
    check_batches_and_threads(CORPUS[name]())


@pytest.mark.parametrize("seed", range(10, 18))
def test_a_random_network(seed: int):
    check_batches_and_threads(unet(seed))


@pytest.mark.parametrize(("seed", "batch"), [(10, 700), (12, 1001), (13, 1001)])
def test_a_batch_that_is_run_in_parts(seed: int, batch: int):
    program = unet(seed, batch)
    height, width = program.x.shape[2:]
    parts = -(-batch // (2**14 // (height * width)))
    assert parts > 1
    whole = program.run(threads=2)
    edges = [batch * part // parts for part in range(parts)]
    for image in sorted({*edges, *(edge - 1 for edge in edges[1:]), batch - 1}):
        np.testing.assert_array_equal(of_images(program, np.array([image]))[0], whole[image])


def digests() -> dict[str, str]:
    """Of the results of all programs, with infinities and NaN among the inputs of some."""
    programs = {name: make() for name, make in CORPUS.items()} | {f"U-Net {seed}": unet(seed) for seed in range(20, 24)}
    for name in list(CORPUS):
        special = CORPUS[name]()
        special.x[0] *= 1e30
        special.x[1] *= 1e-40
        programs[f"{name}, extreme"] = special
    found = {}
    for name, program in programs.items():
        y = program.run()
        y[np.isnan(y)] = np.nan  # which NaN it is, the processor says
        found[name] = hashlib.sha256(y.tobytes()).hexdigest()
    return found


def test_instruction_sets():
    folder = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {folder!r}); import test_engine_bits as t; print(t.json.dumps(t.digests()))"
    results = {}
    for name in SETS:
        command, environment = [sys.executable, "-c", code], os.environ | {"PYSDK_ISA": name}
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if f"PYSDK_ISA is '{name}'" in made.stderr:  # this machine has not got it
            continue
        assert made.returncode == 0, made.stderr
        results[name] = json.loads(made.stdout)
    assert "baseline" in results
    for name, found in results.items():
        assert found == results["baseline"], name
