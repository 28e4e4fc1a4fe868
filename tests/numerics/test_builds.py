"""A checkpoint gives the same plan, byte for byte, whatever machine builds it; unless it is tuned."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pysdk import Plan
from pysdk.export.build import build
from pysdk.export.engines.native.folding import product

pytestmark = pytest.mark.slow

OTHER_MACHINE = {
    "PYTHONHASHSEED": "7",
    "PYSDK_ISA": "baseline",
    "ATEN_CPU_CAPABILITY": "default",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def test_same_bytes_on_another_machine(
    unconditional_checkpoint: Path, unconditional_plan: Path, tmp_path: Path
) -> None:
    """Fewer instruction sets, one processor, another order of sets, no time for more than two timesteps."""
    program = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pysdk.export.build import build\n"
        "build(sys.argv[1], sys.argv[2], solver='ddim', steps=50, batch_size=4, check_seconds=0)"
    )
    out = tmp_path / "other.plan"
    command = [sys.executable, "-W", "ignore", "-c", program, unconditional_checkpoint, out]
    subprocess.run(command, env=os.environ | OTHER_MACHINE, check=True, capture_output=True)
    assert out.read_bytes() == unconditional_plan.read_bytes()


def test_the_default_times_nothing(
    unconditional_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pysdk.export import choose
    from pysdk.export.engines.native import builder

    def timed(*_: object) -> None:
        raise AssertionError("something was timed")

    monkeypatch.setattr(builder, "profile", timed)
    monkeypatch.setattr(choose, "seconds_per_call", timed)
    manifest = build(unconditional_checkpoint, tmp_path / "engine.plan", check_seconds=0)
    assert [engine.kind for engine in manifest.engines] == ["native", "onnxruntime"]
    assert all(engine.tuned is False and engine.seconds_per_step is None for engine in manifest.engines)


def test_a_tuned_plan_says_so(unconditional_checkpoint: Path, tmp_path: Path) -> None:
    manifest = build(unconditional_checkpoint, tmp_path / "engine.plan", check_seconds=0, tune=True)
    times = [engine.seconds_per_step for engine in manifest.engines]
    assert None not in times
    assert times == sorted(times)  # type: ignore[type-var]
    assert all(engine.tuned for engine in manifest.engines)
    with Plan.open(tmp_path / "engine.plan") as plan:
        assert plan.summary().count(", tuned") == 2


def test_products_of_weights_are_summed_in_order() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 300)), rng.standard_normal((300, 7))
    expected = [[sum(float(x) * float(y) for x, y in zip(row, column, strict=True)) for column in b.T] for row in a]
    if sys.version_info < (3, 12):  # from then on, `sum` of floats is compensated
        np.testing.assert_array_equal(product(a, b), expected)
    np.testing.assert_allclose(product(a, b), a @ b, rtol=1e-12)
