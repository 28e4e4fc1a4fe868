"""TensorRT engines on a GPU: needs TensorRT, or TensorRT-RTX on a GPU it builds for, and what builds plans."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pysdk import Plan, Sampler
from pysdk.engines.tensorrt import engine, libraries
from pysdk.errors import EngineError, OptionError


@pytest.fixture(scope="module")
def tensorrt_plan(conditional_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plan of `conditional_plan` with a float32 engine for batches of 1 to 8."""
    if not libraries.installed():
        pytest.skip("TensorRT is not installed")
    from pysdk.export.build import build
    from pysdk.export.settings import TensorrtOptions

    path = tmp_path_factory.mktemp("tensorrt") / "engine.plan"
    manifest = build(
        conditional_checkpoint,
        path,
        solver="ddim",
        steps=50,
        batch_size=4,
        engine=["tensorrt", "onnxruntime"],
        tensorrt=TensorrtOptions(batch_profile=(1, 4, 8)),
        check_seconds=0,
    )
    reason = engine.unusable(manifest.engines[0])
    if reason is not None:
        pytest.skip(reason)
    return path


@pytest.fixture
def on_tensorrt(tensorrt_plan: Path) -> Any:
    with Sampler(tensorrt_plan, device="cuda") as sampler:
        yield sampler


@pytest.mark.parametrize("guidance_scale", [None, 2.0])
def test_the_same_image_on_cpu_and_tensorrt(
    conditional: Sampler, on_tensorrt: Sampler, guidance_scale: float | None
) -> None:
    """TensorRT adds in another order: as for torch, a 50-step chain may differ by 1e-3 of the range."""
    arguments = {"seed": 5, "guidance_scale": guidance_scale, "output": "float32"}
    made = on_tensorrt.sample(6, **arguments)
    np.testing.assert_allclose(made, conditional.sample(6, **arguments), atol=2e-3)
    assert on_tensorrt.info["running"]["engine"] == "tensorrt"


def test_it_is_captured_and_every_launch_gives_the_same_images(tensorrt_plan: Path, on_tensorrt: Sampler) -> None:
    wanted = on_tensorrt.sample(6, steps=20)
    assert "one launch per chain" in on_tensorrt.info["running"]["chain"]
    for launch in ("while", "step", "plain"):
        with Sampler(tensorrt_plan, device="cuda", launch=launch) as sampler:
            np.testing.assert_array_equal(sampler.sample(6, steps=20), wanted)


def test_guidance_in_an_interval_and_dynamic_thresholds_on_one_graph(on_tensorrt: Sampler) -> None:
    arguments = {"steps": 20, "guidance_scale": 2.0, "guidance_interval": (200, 700)}
    made = on_tensorrt.sample(3, **arguments)
    np.testing.assert_array_equal(on_tensorrt.sample(3, **arguments), made)


def test_chains_on_several_streams_have_contexts_of_their_own(on_tensorrt: Sampler) -> None:
    wanted = [on_tensorrt.sample(6, steps=20, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda seed: on_tensorrt.sample(6, steps=20, seed=seed), range(8)))
    np.testing.assert_array_equal(made, wanted)


def test_batches_of_the_profile(tensorrt_plan: Path, on_tensorrt: Sampler) -> None:
    wanted = on_tensorrt.sample(5, steps=20, output="float32")
    for size in (1, 8):
        with Sampler(tensorrt_plan, device="cuda", batch_size=size) as sampler:
            np.testing.assert_allclose(sampler.sample(5, steps=20, output="float32"), wanted, atol=2e-3)
    with pytest.raises(OptionError, match="this engine takes 1 to 8 images in a call"):
        Sampler(tensorrt_plan, device="cuda", batch_size=9)


def test_a_raw_engine_is_the_same_network(tensorrt_plan: Path, on_tensorrt: Sampler, tmp_path: Path) -> None:
    """What trtexec would write: the engine without its plan, whose inputs and batches are read from it."""
    from pysdk.export.build import build

    with Plan.open(tensorrt_plan) as plan:
        built = plan.manifest.engines[0]
        (tmp_path / "raw.engine").write_bytes(plan.member(built.member))
    options = {"prediction_type": "epsilon", "schedule": "linear", "variance_type": "learned_range"}
    manifest = build(
        tmp_path / "raw.engine",
        tmp_path / "raw.plan",
        importer_options={**options, "num_classes": "3", "null_label": "3"},
    )
    assert manifest.engines[0].batches == (1, 8)
    assert manifest.engines[0].requires["version"] == built.requires["version"]
    with Sampler(tmp_path / "raw.plan", device="cuda") as sampler:
        np.testing.assert_array_equal(sampler.sample(4, steps=20), on_tensorrt.sample(4, steps=20))


def test_a_damaged_engine_is_refused(tensorrt_plan: Path) -> None:
    with Plan.open(tensorrt_plan) as plan:
        info, model = plan.manifest.engines[0], plan.manifest.model
        damaged = bytearray(plan.member(info.member))
    damaged[: len(damaged) // 2] = bytes(len(damaged) // 2)
    with pytest.raises(EngineError, match="cannot load the engine"):
        engine.load(model, info, memoryview(damaged), 0)
