"""Engines of trtexec as plans: what a library says of them becomes a plan, or one sentence. No library is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pysdk import Plan, Sampler
from pysdk.engines.tensorrt.engine import check_io
from pysdk.engines.tensorrt.libraries import IoTensor
from pysdk.errors import CheckpointError, EngineError, OptionError
from pysdk.export import build_engine
from pysdk.export.build import build
from pysdk.export.classifier.adding import add_classifier
from pysdk.export.importers.onnx.options import parse_options
from pysdk.export.importers.trtexec import model
from pysdk.export.importers.trtexec.engine import EngineFile, network_of
from pysdk.export.network import Network

FORM = {"prediction_type": "epsilon", "schedule": "linear", "timesteps": "20"}
X = IoTensor("sample", "float32", (-1, 3, 8, 8), True)
T = IoTensor("timestep", "float32", (1,), True)
LABEL = IoTensor("class_labels", "int64", (-1,), True)
OUT = IoTensor("noise_pred", "float32", (-1, 3, 8, 8), False)
PROFILE = (1, 4, 16)
DATA = b"ftrt" + bytes(60)


def network(*io: IoTensor, profiles: dict[str, tuple[int, int, int]] | None = None, **options: str) -> Network:
    batches = {
        tensor.name: PROFILE if tensor.shape[0] == -1 else (tensor.shape[0],) * 3
        for tensor in io
        if tensor.is_input and tensor.shape
    }
    file = EngineFile("tensorrt", "11.4.1.10", "9.0", io, {**batches, **(profiles or {})})
    return network_of(file, DATA, parse_options({**FORM, **options}, "model", "a TensorRT engine"))


def changed(tensor: IoTensor, **changes: Any) -> IoTensor:
    return IoTensor(**{**vars(tensor), **changes})


def test_what_a_plan_says_of_an_engine() -> None:
    made = network(T, X, OUT)
    assert (made.module, made.onnx) == (None, None)
    assert (made.model.name, made.model.shape, made.model.out_channels) == ("model", (3, 8, 8), 3)
    assert made.engine is not None
    assert made.engine.files == {"tensorrt.engine": DATA}
    info = made.engine.info
    assert (info.kind, info.precision, info.batch_size, info.batches) == ("tensorrt", "unknown", 4, (1, 16))
    assert info.names == {"x": "sample", "t": "timestep", "output": "noise_pred"}
    assert info.requires == {"library": "tensorrt", "version": "11.4.1.10", "compute_capability": "9.0"}
    assert check_io((T, X, OUT), made.model, info.names).keys() == {"x", "t", "output"}


@pytest.mark.parametrize(
    ("io", "options", "batches"),
    [
        ((X, changed(T, shape=()), OUT), {}, (1, 16)),
        ((X, changed(T, shape=(-1,)), OUT), {"t_shape": "one"}, (1, 16)),
        ((changed(X, shape=(8, 3, 8, 8)), T, changed(OUT, shape=(8, 3, 8, 8))), {}, (8, 8)),
        ((changed(X, shape=(1, 3, 8, 8)), changed(T, shape=(1,)), changed(OUT, shape=(1, 3, 8, 8))), {}, (1, 1)),
        ((X, T, LABEL, OUT), {"num_classes": "3", "null_label": "3"}, (1, 16)),
        ((X, T, changed(OUT, shape=(-1, 6, 8, 8))), {"variance_type": "learned_range"}, (1, 16)),
        ((changed(X, name="a"), changed(T, name="b"), OUT), {"shape": "3,8,8"}, (1, 16)),
        ((changed(X, name="x"), changed(T, name="t"), changed(OUT, name="output")), {}, (1, 16)),
    ],
    ids=["scalar", "one", "fixed", "fixed 1", "classes", "learned", "names", "ours"],
)
def test_forms_that_a_plan_can_hold(
    io: tuple[IoTensor, ...], options: dict[str, str], batches: tuple[int, int]
) -> None:
    made = network(*io, **options)
    assert made.engine is not None
    assert made.engine.info.batches == batches
    check_io(io, made.model, made.engine.info.names)


def test_the_batches_of_image_and_label() -> None:
    made = network(X, T, LABEL, OUT, profiles={"class_labels": (6, 8, 12)}, num_classes="3")
    assert made.engine is not None
    assert (made.engine.info.batches, made.engine.info.batch_size) == ((6, 12), 6)
    with pytest.raises(CheckpointError, match="image, label and output have different batches; build from the ONNX"):
        network(X, T, LABEL, OUT, profiles={"class_labels": (17, 18, 19)}, num_classes="3")


@pytest.mark.parametrize(
    ("io", "options", "reason"),
    [
        ((changed(X, dtype="float16"), T, OUT), {}, "'sample' is float16, a chain has an image in float32"),
        ((X, changed(T, dtype="int64"), OUT), {}, "'timestep' is int64, a chain has its time in float32"),
        ((X, T, changed(OUT, dtype="float16")), {}, "'noise_pred' is float16, a chain has an output in float32"),
        (
            (X, T, changed(LABEL, dtype="int32"), OUT),
            {"num_classes": "3"},
            "'class_labels' is int32, a chain has labels",
        ),
        (
            (X, changed(T, shape=(-1,)), OUT),
            {},
            "'timestep' has a value for each image, a chain has one for all (if one",
        ),
        ((X, changed(T, shape=(4,)), OUT), {"t_shape": "one"}, "'timestep' has 4 values or more, a chain has one"),
        ((changed(X, shape=(-1, 8, 8, 3)), T, OUT), {}, "'sample' has its channels last, a chain has them first"),
        ((X, T, OUT), {"layout": "nhwc"}, "'sample' has its channels last"),
        ((changed(X, shape=(-1, 3, -1, -1)), T, OUT), {}, "it leaves open more than the batch"),
        ((X, T, changed(OUT, shape=(-1, 3, 4, 4))), {}, "'noise_pred' is no image of the size of 'sample'"),
        ((X, T, changed(OUT, shape=(4, 3, 8, 8))), {}, "image, label and output have different batches"),
        ((X, T, changed(LABEL, shape=(-1, 1)), OUT), {"num_classes": "3"}, "'class_labels' has 2 axes"),
        (
            (X, T, changed(X, name="mask"), OUT),
            {"x_name": "sample"},
            "the network needs ['mask'], which a chain does not",
        ),
        ((X, changed(T, shape=(-1, 1)), OUT), {}, "expected a scalar, (1,) or (batch,)"),
    ],
)
def test_engines_refused(io: tuple[IoTensor, ...], options: dict[str, str], reason: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        network(*io, **options)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("io", "options", "reason"),
    [
        ((X, changed(X, name="other"), T, OUT), {}, "the network has 2 floating-point inputs with four axes"),
        ((X, T, OUT, changed(OUT, name="more")), {}, "the network has 2 outputs"),
        ((X, T, OUT), {"colour": "red"}, "a TensorRT engine takes no option --colour"),
        ((X, T, OUT), {"shape": "3,4,4"}, "--shape is (3, 4, 4), but the network has (3, 8, 8)"),
        ((X, T, LABEL, OUT), {}, "the network has an input 'class_labels': say --num_classes"),
        (
            (X, T, OUT),
            {"variance_type": "learned_range"},
            "--variance_type is learned_range, but the network returns 3",
        ),
    ],
)
def test_options_refused(io: tuple[IoTensor, ...], options: dict[str, str], reason: str) -> None:
    with pytest.raises(OptionError) as caught:
        network(*io, **options)
    assert reason in str(caught.value)


# The plan that comes of it, which has no network.onnx.


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that this machine would read as a good engine."""
    file = EngineFile("tensorrt", "11.4.1.10", "9.0", (X, T, OUT), {"sample": PROFILE, "timestep": (1, 1, 1)})
    monkeypatch.setattr(model, "read", lambda name, path: (file, DATA))
    (tmp_path / "model.engine").write_bytes(DATA)
    return tmp_path / "model.engine"


def test_a_plan_without_onnx(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    manifest = build(raw, path, importer_options=FORM, steps=5, batch_size=8)
    assert list(manifest.members) == ["tensorrt.engine"]
    with Plan.open(path) as plan:
        plan.verify()
        assert bytes(plan.member("tensorrt.engine")) == DATA
        assert "engine    tensorrt unknown, batch 8 (1 to 16), compute_capability 9.0, library" in plan.summary()
        assert (plan.manifest.schedule.name, plan.manifest.defaults.steps) == ("linear", 5)
    with pytest.raises(
        EngineError, match=r"no engine that runs on the CPU \(tensorrt: it runs on a CUDA device\); use"
    ):
        Sampler(path)
    with pytest.raises(OptionError, match="has no engine for the CPU, where alone classifier guidance runs; build one"):
        add_classifier(path, nn.Identity(), 3)


def test_a_header_names_the_version(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    path.write_bytes(b"ftrt" + bytes(20) + bytes([10, 13, 3, 9]) + bytes(36))
    assert model.header(path) == ("tensorrt", "TensorRT 10.13.3.9")
    path.write_bytes(DATA)
    assert model.header(path) == ("tensorrt", "TensorRT")


def test_the_command(raw: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    options = [word for name, value in FORM.items() for word in (f"--{name}", value)]
    out = ["-o", str(tmp_path / "model.plan")]
    shown = CliRunner().invoke(build_engine.command, [str(raw), "--dry-run", *out, *options])
    assert "engine   tensorrt as it is, batches of 4, no other" in shown.output
    assert not (tmp_path / "model.plan").exists()
    shown = CliRunner().invoke(build_engine.command, [str(raw), *out, *options])
    assert f"wrote {tmp_path / 'model.plan'}" in shown.output, shown.exception


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "native"}, "engine is native, but the source is a finished TensorRT engine"),
        ({"engine": ["auto", "onnxruntime"]}, "engine is auto, onnxruntime, but the source is a finished"),
        ({"batch_size": 17}, "batch_size is 17, expected 1 to 16, the batches of the engine"),
    ],
)
def test_what_an_engine_cannot_become(raw: Path, tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        build(raw, tmp_path / "model.plan", importer_options=FORM, **options)
    assert not (tmp_path / "model.plan").exists()
