"""TensorRT plans on a simulated device, from the file to the images, against the same network given by hand.

The library is a stand-in (tensorrt_stand_in.py); everything of pysdk is real. tests/gpu has what needs TensorRT.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from kit.cuda.host_engine import HostEngine
from kit.cuda.tensorrt_stand_in import INFO, StandIn
from msgspec.structs import replace

from pysdk import Plan, Sampler, _native
from pysdk.engines.tensorrt import engine
from pysdk.errors import EngineError, OptionError

either = pytest.mark.parametrize("trt", ["tensorrt", "tensorrt_rtx"], indirect=True)


@either
@pytest.mark.parametrize("launch", ["while", "step", "plain"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"seed": 7, "solver": "ddpm"}, {"guidance_scale": 2.5, "guidance_interval": (200, 700)}],
    ids=["plain", "ddpm", "guided"],
)
def test_images_are_those_of_the_network_given_by_hand(
    trt: StandIn, make: Callable[..., Path], launch: Any, arguments: dict[str, Any]
) -> None:
    path, arguments = make(trt.info), {"steps": 4, "output": "float32", **arguments}
    by_hand = HostEngine(path, trt.device, "onnxruntime")
    with (
        Sampler(path, device="cuda", launch=launch) as sampler,
        Sampler(path, device="cuda", launch=launch, network=by_hand) as other,
        Sampler(path, engine="onnxruntime", threads=1) as cpu,
    ):
        images = sampler.sample(6, **arguments)
        np.testing.assert_array_equal(images, other.sample(6, **arguments))
        np.testing.assert_array_equal(images, cpu.sample(6, **arguments))
        running = sampler.info["running"]
    assert (running["engine"], running["description"], running["skipped"]) == (
        "tensorrt",
        f"{trt.library().title}, GPU",
        {},
    )
    way = {"while": "one launch per chain", "step": "one launch per row", "plain": "plain calls"}[launch]
    assert running["chain"].startswith(f"simulated device, {way}, ")


@either
def test_a_chain_has_one_context_and_warms_it_up_before_it_is_captured(trt: StandIn, make: Callable[..., Path]) -> None:
    with Sampler(make(trt.info), device="cuda") as sampler:
        for seed in range(3):
            sampler.sample(6, steps=4, seed=seed)
        [context] = trt.contexts
        assert context.runs == ["run", "captured"], "one run, then one graph for two batches of three calls"
        sampler.sample(6, steps=4, guidance_scale=2.0)
        assert [context.shapes["x"] for context in trt.contexts] == [(4, 1, 8, 8), (4, 1, 8, 8)]


@either
def test_unguided_rows_have_a_context_of_half_the_batch(trt: StandIn, make: Callable[..., Path]) -> None:
    """Only where the engine is known to give an image the same bits in any batch."""
    path = make(replace(trt.info, batch_invariant=True, batches=(1, 8)))
    arguments = {"steps": 6, "guidance_scale": 3.0, "guidance_interval": (200, 700), "output": "float32"}
    with Sampler(path, device="cuda") as sampler, Sampler(path, engine="onnxruntime", threads=1) as cpu:
        np.testing.assert_array_equal(sampler.sample(3, **arguments), cpu.sample(3, **arguments))
    assert [context.shapes["label"] for context in trt.contexts] == [(4,), (2,), (2,), (1,)]
    assert {tuple(context.runs) for context in trt.contexts} == {("run", "captured")}


def test_batches_that_the_engine_takes(trt: StandIn, make: Callable[..., Path]) -> None:
    path = make()
    with Sampler(path, device="cuda") as sampler:
        assert sampler.batch_size == 4
        default = sampler.sample(7, steps=2)
    for size in (2, 5, 8):
        with Sampler(path, device="cuda", batch_size=size) as sampler:
            np.testing.assert_array_equal(sampler.sample(7, steps=2), default)
        assert trt.contexts[-1].shapes["x"][0] == size
    for size in (1, 9):
        with pytest.raises(OptionError, match=rf"batch_size is {size}, but this engine takes 2 to 8 images in a call"):
            Sampler(path, device="cuda", batch_size=size)
    unknown = make(replace(INFO, batches=None))
    with pytest.raises(OptionError, match="batch_size is 8, but this engine was built for 4; leave batch_size out"):
        Sampler(unknown, device="cuda", batch_size=8)


def test_a_batch_outside_of_the_profile_is_named(trt: StandIn, make: Callable[..., Path]) -> None:
    """A guided call has an even number of images: of 3 it makes 2."""
    with (
        Sampler(make(replace(INFO, batch_size=3, batches=(3, 3))), device="cuda") as sampler,
        pytest.raises(
            EngineError, match=r"takes no 'x' of shape \(2, 1, 8, 8\) \(x is outside of the profile, .*\); build"
        ),
    ):
        sampler.sample(1, steps=2, guidance_scale=2.0)


def test_the_default_device_is_the_cpu(trt: StandIn, make: Callable[..., Path]) -> None:
    with Sampler(make(), threads=1) as sampler:
        running = sampler.info["running"]
        assert running["engine"] != "tensorrt"
        assert running["skipped"]["tensorrt"] == "it runs on a CUDA device"
    with pytest.raises(EngineError, match=r"no engine 'tensorrt' that runs on the CPU \(.*\); use device='cuda'"):
        Sampler(make(), engine="tensorrt")


def test_the_device_that_is_meant_is_asked(trt: StandIn, make: Callable[..., Path]) -> None:
    path = make()
    reason = (
        r"tensorrt: it was built for compute capability 9\.0, the NVIDIA L4 of this machine has 8\.9; build the plan "
    )
    command = f"pysdk build {path} -o {path} --engine tensorrt --engine auto --batch-size 4 --batch-profile 2,4,8"
    with pytest.raises(EngineError, match=f"{reason}again with `{command}`"):
        Sampler(path, device="cuda:1")


def test_nothing_happens_on_another_device(trt: StandIn, make: Callable[..., Path]) -> None:
    with Plan.open(make()) as plan, pytest.raises(EngineError, match="cannot load the engine: deserialize: no current"):
        engine.load(plan.manifest.model, INFO, plan.member(INFO.member), 0)
    assert not trt.device.is_current
    with Sampler(make(), device="cuda") as sampler:
        sampler.sample(2, steps=2)
    assert not trt.device.is_current


def test_what_pysdk_info_says(trt: StandIn, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from pysdk.cli.commands import pysdk

    path = make()
    _, count, text = _native.cuda_status()
    if count == 0:
        shown = CliRunner().invoke(pysdk, ["info", str(path)]).output
        assert "runs on cuda: none (" in shown
        assert text in shown
    monkeypatch.setattr("pysdk.machine.devices.open_device", lambda number: trt.device)
    shown = CliRunner().invoke(pysdk, ["info", str(path)]).output
    assert "runs here: " in shown
    assert "runs on cuda: tensorrt; " in shown
    assert "engine    tensorrt float32, batch 4 (2 to 8)" in shown
    described = json.loads(CliRunner().invoke(pysdk, ["info", "--json", str(path)]).output)
    assert described["runs_on_cuda"].startswith("tensorrt; ")
    assert described["engines"][0]["batches"] == [2, 8]


@either
def test_an_engine_without_weights_gets_them(trt: StandIn, make: Callable[..., Path]) -> None:
    with (
        Sampler(make(trt.info), device="cuda") as whole,
        Sampler(make(replace(trt.info, data=("network.onnx",)), stripped=True), device="cuda") as stripped,
    ):
        np.testing.assert_array_equal(stripped.sample(3, steps=2), whole.sample(3, steps=2))


@either
def test_contexts_work_in_memory_of_the_device(trt: StandIn, make: Callable[..., Path]) -> None:
    """Counted, as much as the batch needs, and given back with the chain."""
    with Sampler(make(trt.info), device="cuda") as sampler:
        sampler.sample(6, steps=2)
        executor = sampler._executor
        assert executor.engine.memory == 4 * 4096
        assert executor.memory == 4 * 4096 + sum(chain.memory for _, chain in executor._idle)
        executor._idle.clear()
        trt.contexts.clear()
        gc.collect()
        assert executor.engine.memory == 0
        assert sampler.info["running"]["chain"].endswith(", 0.0 MiB in idle chains and contexts")


@either
def test_contexts_live_as_long_as_their_chains(trt: StandIn, make: Callable[..., Path]) -> None:
    """What is bound keeps its context: nothing else does."""
    with Sampler(make(trt.info), device="cuda") as sampler:
        expected = sampler.sample(2, steps=3)
        trt.contexts.clear()
        gc.collect()
        np.testing.assert_array_equal(sampler.sample(2, steps=3), expected)
