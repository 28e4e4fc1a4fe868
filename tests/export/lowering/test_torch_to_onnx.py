"""Lowering: the ONNX file is the torch network, and nothing that is not gets into a plan."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from kit.tiny_networks import save_random_unet
from onnx import numpy_helper

from pysdk import Plan, Sampler
from pysdk.engines import registry
from pysdk.errors import ExportError, OptionError, OutputError
from pysdk.export import choose
from pysdk.export.build import build
from pysdk.export.check import NetworkBuffers, affordable, is_batch_invariant
from pysdk.export.importers import load_network
from pysdk.export.lowering import torch_to_onnx
from pysdk.export.lowering.onnx_files import OnnxFiles
from pysdk.plan.manifest import ModelInfo
from pysdk.training.checkpoint import load_model

LIMIT = 1e-4  # of the largest output


def largest_errors(plan_path: Path, checkpoint: Path, timesteps: range, kind: str) -> tuple[float, float]:
    """max |engine - torch| and max |torch| over some timesteps, three images at each."""
    module = load_model(checkpoint)[1]
    rng = np.random.default_rng(3)
    with Plan.open(plan_path) as plan:
        model, (info,) = plan.manifest.model, (info for info in plan.manifest.engines if info.kind == kind)
        engine = registry.load(plan, info, 1)
    buffers = NetworkBuffers(model, 3)
    call = engine.bind(buffers)
    error = largest = 0.0
    for t in timesteps:
        buffers.network_input[:] = rng.standard_normal(buffers.network_input.shape)
        buffers.network_time[:] = t
        inputs = [torch.from_numpy(buffers.network_input), torch.from_numpy(buffers.network_time)]
        if model.num_classes is not None:
            buffers.network_labels[:] = rng.integers(model.num_classes + (model.null_label is not None), size=3)
            inputs.append(torch.from_numpy(buffers.network_labels))
        call()
        with torch.inference_mode():
            expected = module(*inputs).numpy()
        error = max(error, float(np.abs(buffers.network_output - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
    return error, largest


@pytest.mark.parametrize("kind", ["native", "onnxruntime"])
@pytest.mark.parametrize("name", ["conditional", "unconditional"])
def test_the_network_of_a_plan_is_that_of_torch(request: pytest.FixtureRequest, name: str, kind: str) -> None:
    plan_path, checkpoint = request.getfixturevalue(f"{name}_plan"), request.getfixturevalue(f"{name}_checkpoint")
    with Plan.open(plan_path) as plan:
        timesteps, (info,) = len(plan.manifest.schedule.betas), (e for e in plan.manifest.engines if e.kind == kind)
    error, largest = largest_errors(plan_path, checkpoint, range(0, timesteps, timesteps // 50), kind)
    assert largest > 0.2
    assert error < LIMIT * largest
    assert "compared with torch" in info.notes


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"resample": "resblock", "scale_shift_norm": True, "num_classes": 2, "attention_levels": ()},
        {"resample": "conv", "learn_variance": True, "image_shape": (3, 8, 4), "num_res_blocks": (0, 1)},
        {"channel_mult": (1,), "attention_levels": (), "num_classes": 5, "null_label": True, "dropout": 0.5},
    ],
    ids=["resblock, scale and shift, classes", "conv, learned variance, not square", "one level, dropout, null label"],
)
def test_other_options_of_the_network(tmp_path: Path, options: dict[str, Any]) -> None:
    """With those of the two fixtures, every option of the U-Net."""
    checkpoint = save_random_unet(tmp_path / "model", timesteps=5, **options)
    manifest = build(checkpoint, tmp_path / "a.plan", steps=3, batch_size=2)
    for kind in ("native", "onnxruntime"):
        error, largest = largest_errors(tmp_path / "a.plan", checkpoint, range(5), kind)
        assert error < LIMIT * largest
    assert manifest.model.shape == options.get("image_shape", (1, 8, 8))
    assert manifest.model.null_label == (5 if "null_label" in options else None)
    with Sampler(tmp_path / "a.plan", threads=1) as sampler:
        assert np.isfinite(sampler.sample(3, output="float32")).all()


def test_what_the_manifest_says(conditional_plan: Path, conditional_checkpoint: Path) -> None:
    with Plan.open(conditional_plan) as plan:
        plan.verify()
        manifest = plan.manifest
    config, module = load_model(conditional_checkpoint)
    assert manifest.model == ModelInfo(
        name="tiny",
        shape=(1, 8, 8),
        out_channels=2,
        variance_type="learned_range",
        num_classes=3,
        null_label=3,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )
    assert manifest.schedule.name == "linear"
    np.testing.assert_array_equal(manifest.schedule.betas, config.make_schedule().betas)
    assert {engine.kind for engine in manifest.engines} == {"native", "onnxruntime"}
    for engine in manifest.engines:
        assert (engine.precision, engine.batch_size, engine.batch_invariant) == ("float32", 4, True)
    assert [engine.kind for engine in manifest.engines] == ["native", "onnxruntime"]


# What is refused, on the fixture's ONNX file instead of a new export.


@pytest.fixture
def exported(conditional_plan: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes | None], bytes]:
    """Let `build` get these bytes, or the fixture's, from its export."""
    with Plan.open(conditional_plan) as plan:
        good = bytes(plan.member("network.onnx"))

    def use(data: bytes | None = None) -> bytes:
        monkeypatch.setattr(torch_to_onnx, "export_onnx", lambda network: OnnxFiles(data or good))
        return good

    return use


def perturbed(data: bytes, change: float) -> bytes:
    """The ONNX file with one weight of its largest tensor changed."""
    model = onnx.load_from_string(data)
    tensor = max(model.graph.initializer, key=lambda found: len(found.raw_data))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[values.size // 2] += np.float32(change)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return bytes(model.SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("change", [0.1, float("nan")])
def test_a_wrong_weight_is_found(tmp_path: Path, conditional_checkpoint: Path, exported: Any, change: float) -> None:
    exported(perturbed(exported(), change))
    message = "check the engines: .* is .* away from torch where torch returns up to"
    with pytest.raises(ExportError, match=message):
        build(conditional_checkpoint, tmp_path / "a.plan")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_onnx_is_found(tmp_path: Path, conditional_checkpoint: Path, exported: Any) -> None:
    exported(b"nonsense")
    with pytest.raises(ExportError, match="compile the network: the network is not an ONNX file"):
        build(conditional_checkpoint, tmp_path / "a.plan")


@pytest.mark.slow
def test_nan_weights_are_not_shipped(tmp_path: Path, exported: Any) -> None:
    checkpoint = save_random_unet(tmp_path / "model", num_classes=3, null_label=True, learn_variance=True)
    config, module = load_model(checkpoint)
    with torch.no_grad():
        module.stem.weight[0] = float("nan")
    from pysdk.training.checkpoint import save_model

    save_model(checkpoint, config, module.state_dict())
    exported()
    message = "check the engines: the torch network returns NaN or infinity at t = 0 on random input"
    with pytest.raises(ExportError, match=message):
        build(checkpoint, tmp_path / "a.plan")
    assert not (tmp_path / "a.plan").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1001}, "steps is 1001, expected 1 to 1000"),
        ({"solver": "magic"}, "solver is 'magic', expected one of"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
    ],
)
def test_defaults_are_checked_before_the_work(
    tmp_path: Path, conditional_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, options: dict, message: str
) -> None:
    monkeypatch.setattr(torch_to_onnx, "export_onnx", lambda network: pytest.fail("exported before the check"))
    with pytest.raises(ExportError, match=f"check the defaults: {message}"):
        build(conditional_checkpoint, tmp_path / "a.plan", **options)


def test_guidance_that_the_network_cannot_do(tmp_path: Path, unconditional_checkpoint: Path) -> None:
    with pytest.raises(
        ExportError, match=r"check the defaults: guidance_scale is 2\.0, but 'tiny' was trained without"
    ):
        build(unconditional_checkpoint, tmp_path / "a.plan", guidance_scale=2.0)


def test_a_plan_that_cannot_be_written(
    tmp_path: Path, conditional_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(torch_to_onnx, "export_onnx", lambda network: pytest.fail("exported before the check"))
    with pytest.raises(OutputError, match=r"cannot write .*: there is no folder"):
        build(conditional_checkpoint, tmp_path / "file" / "a.plan", batch_size=1)


# Which engines a plan gets.


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_one_engine_may_be_asked_for(tmp_path: Path, conditional_checkpoint: Path, exported: Any, engine: str) -> None:
    exported()
    manifest = build(conditional_checkpoint, tmp_path / "a.plan", engine=engine, batch_size=2, check_seconds=0)
    (info,) = manifest.engines
    assert info.kind == engine
    assert "compared with torch" in info.notes
    assert ("native.json" in manifest.members) == (engine == "native")
    if engine == "native":
        assert info.data == ("network.onnx", "native.constants")
        assert "; convolutions: " in info.notes


def test_an_engine_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="engine is 'fast', expected auto, native, onnxruntime"):
        build(tmp_path, tmp_path / "a.plan", engine="fast")


def uncovered(data: bytes) -> bytes:
    """The same network, its last node followed by one that the native engine does not know."""
    model = onnx.load_from_string(data)
    model.graph.node[-1].output[0] = "almost"
    for node in (["Elu", ["almost"], ["up"], "strange"], ["Min", ["up", "almost"], ["output"], "smaller"]):
        model.graph.node.append(onnx.helper.make_node(*node))
    return bytes(model.SerializeToString())


def test_a_network_that_is_not_covered_runs_on_onnx_runtime(
    tmp_path: Path, conditional_checkpoint: Path, exported: Any
) -> None:
    exported(uncovered(exported()))
    reason = "node 'strange' (Elu): the native engine has no such operation"
    with pytest.raises(ExportError, match=re.escape(f"compile the network: {reason}; build with --engine onnxruntime")):
        build(conditional_checkpoint, tmp_path / "a.plan", engine="native")
    network = load_network(str(conditional_checkpoint), {})
    found, why = choose.candidates(network, OnnxFiles(uncovered(exported())), ["auto"], 2, 0, list)
    assert ([candidate.info.kind for candidate in found], why) == (["onnxruntime"], reason)


@pytest.mark.parametrize(
    ("total", "each", "budget", "expected"),
    [
        (5, 0.1, 10, [0, 1, 2, 3, 4]),
        (1000, 1, 3, [0, 500, 999]),
        (1000, 1, 0, [0, 999]),
        (1000, 0, 1, list(range(1000))),
        (1, 1, 0, [0]),
    ],
)
def test_timesteps_that_time_allows(total: int, each: float, budget: float, expected: list[int]) -> None:
    assert affordable(total, each, budget) == expected


# Batch invariance.


class Doubling:
    """An engine that returns 2 x, off by a bit if the batch or the threads make it so."""

    description = "doubling"

    def __init__(self, is_off: Callable[[int], bool]) -> None:
        self.is_off = is_off

    def bind(self, buffers: Any) -> Callable[[], None]:
        def call() -> None:
            np.multiply(buffers.network_input, np.float32(2), out=buffers.network_output)
            if self.is_off(len(buffers.network_input)):
                buffers.network_output[0, 0, 0, 0] = np.nextafter(buffers.network_output[0, 0, 0, 0], np.float32(9))

        return call


@pytest.mark.parametrize(
    ("is_off", "expected"),
    [
        (lambda batch, threads: False, True),
        (lambda batch, threads: True, False),  # the first image of every batch: another one for each batch size
        (lambda batch, threads: batch == 1, False),
        (lambda batch, threads: batch == 3, False),
        (lambda batch, threads: threads == 2, False),
    ],
)
def test_batch_invariance_is_found_out(
    conditional_checkpoint: Path, is_off: Callable[[int, int], bool], expected: bool
) -> None:
    network = load_network(str(conditional_checkpoint), {})
    model = msgspec.structs.replace(network.model, out_channels=1, variance_type="fixed_small")

    def load(threads: int) -> Doubling:
        return Doubling(lambda batch: is_off(batch, threads))

    assert is_batch_invariant(model, load, 8, 1) is expected
