"""The same bits whatever the batch, the place in it, the number of threads and the instruction set."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from kit.engine.corpus import CORPUS, unet
from kit.engine.programs import Array, Program
from kit.processes import IMPORTS

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


def test_instruction_sets():
    code = "import json; from kit.engine.digests import digests; print(json.dumps(digests()))"
    results = {}
    for name in SETS:
        command, environment = [sys.executable, "-c", code], os.environ | IMPORTS | {"PYSDK_ISA": name}
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if f"PYSDK_ISA is '{name}'" in made.stderr:  # this machine has not got it
            continue
        assert made.returncode == 0, made.stderr
        results[name] = json.loads(made.stdout)
    assert "baseline" in results
    for name, found in results.items():
        assert found == results["baseline"], name
