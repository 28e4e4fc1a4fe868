"""Engine files of others as plans and images, on a simulated device; see test_tensorrt_on_device.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit.cuda.tensorrt_stand_in import INFO, StandIn, serialized

from pysdk import Plan, Sampler
from pysdk.errors import EngineError, ExportError
from pysdk.export.build import build


def renamed(onnx: bytes, names: dict[str, str]) -> bytes:
    model = pytest.importorskip("onnx").load_from_string(onnx)
    for value in [*model.graph.input, *model.graph.output]:
        value.name = names[value.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return bytes(model.SerializeToString())


def test_an_engine_file_becomes_a_plan_and_images(trt: StandIn, conditional_plan: Path, tmp_path: Path) -> None:
    with Plan.open(conditional_plan) as plan:
        onnx, model = bytes(plan.member("network.onnx")), plan.manifest.model
    names = {"x": "sample", "t": "timestep", "label": "class_labels", "output": "noise_pred"}
    source, path = tmp_path / "model.engine", tmp_path / "model.plan"
    source.write_bytes(serialized(renamed(onnx, names), (1, 4, 8)))
    options = {"prediction_type": "epsilon", "schedule": "linear", "num_classes": "3", "null_label": "3"}
    with trt.device.current():  # as a process's first one is
        manifest = build(source, path, importer_options={**options, "variance_type": "learned_range"})
    assert (manifest.model.shape, manifest.model.out_channels) == (model.shape, model.out_channels)
    assert (manifest.engines[0].requires, manifest.engines[0].batches) == (INFO.requires, (1, 8))
    arguments = {"steps": 5, "solver": "ddim", "guidance_scale": 2.0, "output": "float32"}
    with (
        Sampler(path, device="cuda") as sampler,
        Sampler(conditional_plan, engine="onnxruntime", threads=1) as cpu,
    ):
        np.testing.assert_array_equal(sampler.sample(5, **arguments), cpu.sample(5, **arguments))
    with pytest.raises(
        EngineError, match=r"that runs on the CPU \(tensorrt: it runs on a CUDA device\); use device='cuda'"
    ):
        Sampler(path)


def test_an_engine_that_cannot_be_loaded_here(trt: StandIn, tmp_path: Path) -> None:
    source = tmp_path / "model.engine"
    source.write_bytes(serialized(b"", (1, 4, 8)))
    with pytest.raises(
        ExportError, match=r"engine of TensorRT: .* cannot load the engine: deserialize: .*; build from"
    ):
        build(source, tmp_path / "model.plan")
