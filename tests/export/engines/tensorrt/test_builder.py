"""TensorRT engines, built by TensorRT-RTX on whatever machine this is: it needs no GPU for that."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from pysdk import Plan, Sampler
from pysdk.engines.tensorrt import libraries
from pysdk.engines.tensorrt.libraries import Library, Log
from pysdk.errors import CheckpointError, EngineError, ExportError, MissingDependencyError, OptionError
from pysdk.export import build_engine
from pysdk.export.build import build
from pysdk.export.engines.tensorrt.builder import Built, build_tensorrt
from pysdk.export.engines.tensorrt.compiler import read_timing_cache
from pysdk.export.importers import load_network
from pysdk.export.importers.trtexec import model
from pysdk.export.lowering import torch_to_onnx
from pysdk.export.lowering.onnx_files import OnnxFiles
from pysdk.export.lowering.precision import in_precision
from pysdk.export.network import Network
from pysdk.export.settings import TensorrtOptions, check_engines
from pysdk.machine import cuda_driver


def device() -> str | None:
    try:
        return cuda_driver.device().compute_capability
    except EngineError:
        return None


rtx = pytest.mark.skipif(
    "tensorrt_rtx" not in libraries.installed(),
    reason="TensorRT-RTX is not installed (`pip install 'pysdk-diffusion[tensorrt]'`)",
)
no_device = pytest.mark.skipif(device() is not None, reason="this machine has a GPU")


@pytest.fixture(scope="session")
def library() -> Library:
    return libraries.find("tensorrt_rtx")


@pytest.fixture(scope="session")
def network(conditional_checkpoint: Path) -> Network:
    return load_network(str(conditional_checkpoint), {})


@pytest.fixture(scope="session")
def data(conditional_plan: Path) -> bytes:
    with Plan.open(conditional_plan) as plan:
        return bytes(plan.member("network.onnx"))


@pytest.fixture(scope="session")
def built(network: Network, data: bytes, library: Library) -> Built:
    options = TensorrtOptions(batch_profile=(1, 2, 8), compute_capabilities=("8.9", "12.0"))
    return build_tensorrt(network, data, 4, options, 0.0, library=library)


@rtx
def test_an_engine_and_what_the_plan_says_of_it(built: Built, library: Library) -> None:
    info = built.info
    assert (info.kind, info.member, info.precision, info.batch_size) == ("tensorrt", "tensorrt.engine", "float32", 4)
    assert info.requires == {
        "library": "tensorrt_rtx",
        "version": library.version,
        "compute_capability": "8.9 12.0",
    }
    assert [str(tensor) for tensor in built.io] == [
        "x float32 (batch, 1, 8, 8)",
        "t float32 (1)",
        "label int64 (batch)",
        "output float32 (batch, 2, 8, 8)",
    ]
    assert "batches of 1 to 8, fastest at 2" in info.notes
    assert built.inspected == (device() in ("8.9", "12.0"))
    assert len(built.files["tensorrt.engine"]) > 100_000


@rtx
@no_device
def test_layers_are_those_of_the_network(built: Built, data: bytes) -> None:
    convolutions = Counter(node.op_type for node in onnx.load_from_string(data).graph.node)["Conv"]
    assert built.layers["convolution"] == convolutions > 20
    assert "layers of the network (the engine could not be inspected here)" in built.summary()


@rtx
@pytest.mark.parametrize(("precision", "kind"), [("float32", "FLOAT"), ("float16", "HALF"), ("bfloat16", "BF16")])
def test_tensorrt_takes_the_precision_from_the_file(data: bytes, library: Library, precision: str, kind: str) -> None:
    trt, log = library.api, Log()
    logger = library.logger(log)
    parsed = trt.Builder(logger).create_network(library.network_flags())
    assert trt.OnnxParser(parsed, logger).parse(in_precision(data, precision)), log.reason()
    types: dict[str, set[str]] = {}
    for layer in (parsed.get_layer(index) for index in range(parsed.num_layers)):
        types.setdefault(layer.type.name, set()).add(layer.get_output(0).dtype.name)
    assert types["CONVOLUTION"] == {kind}
    assert types["NORMALIZATION"] == types["SOFTMAX"] == {"FLOAT"}


@pytest.mark.slow
@rtx
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_typed_engines(network: Network, data: bytes, library: Library, precision: str) -> None:
    logged: list[tuple[str, str]] = []
    found = build_tensorrt(
        network,
        data,
        2,
        TensorrtOptions(precision=precision),
        0.0,
        echo=lambda severity, message: logged.append((severity, message)),
        library=library,
    )
    assert found.info.precision == precision
    assert found.error is not None
    assert found.info.max_abs_error == found.error.max_abs_error > 0
    assert found.error.summary() in found.info.notes
    assert "8.0" in found.info.requires["compute_capability"].split()
    assert "7.5" not in found.info.requires["compute_capability"].split()
    assert any(severity == "info" and "Detected 3 inputs" in message for severity, message in logged)


@rtx
def test_a_plan_with_an_engine_runs_where_there_is_no_device(
    conditional_checkpoint: Path, data: bytes, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_to_onnx, "export_onnx", lambda network: OnnxFiles(data))
    path = tmp_path / "a.plan"
    options = TensorrtOptions(precision="float16")
    manifest = build(
        conditional_checkpoint, path, engine="tensorrt", tensorrt=options, batch_size=2, steps=3, check_seconds=0
    )
    assert [info.kind for info in manifest.engines] == ["tensorrt", "onnxruntime"]
    with Plan.open(path) as plan:
        assert bytes(plan.member("tensorrt.engine")[:4]) == b"vtrt"
    with Sampler(path, threads=1) as sampler:
        running = sampler.info["running"]
        assert running["engine"] == "onnxruntime"
        assert list(running["skipped"]) == ["tensorrt"]
        assert sampler.sample(2).shape == (2, 8, 8, 1)


# What is refused.


def test_engines_that_are_asked_for() -> None:
    assert check_engines("auto", None) == ("auto",)
    assert check_engines("tensorrt", TensorrtOptions()) == ("tensorrt", "onnxruntime")
    assert check_engines(["native", "tensorrt", "native"], None) == ("native", "tensorrt")
    with pytest.raises(OptionError, match="engine is native, auto, but there are options for tensorrt; add --engine"):
        check_engines(["native", "auto"], TensorrtOptions())
    with pytest.raises(OptionError, match="engine is '', expected auto"):
        check_engines([], None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "precision is 'int8', expected float32, float16, bfloat16"),
        ({"library": "trt"}, "library is 'trt', expected tensorrt or tensorrt_rtx"),
        ({"batch_profile": (4, 2, 8)}, "batch_profile is 4,2,8, expected the smallest, usual and largest"),
        ({"batch_profile": (0, 2, 8)}, "batch_profile is 0,2,8"),
        ({"compute_capabilities": ("sm_89",)}, r"compute_capabilities has 'sm_89', expected e\.g\. '8\.9'"),
        ({"strip_weights": True, "precision": "float16"}, "strip_weights needs precision float32, not float16"),
    ],
)
def test_options_that_are_none(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TensorrtOptions(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "float16"], "engine is auto, but there are options for tensorrt"),
        (["--engine", "tensorrt", "--batch-profile", "1,2"], "--batch-profile is '1,2', expected three numbers"),
        (["--engine", "tensorrt", "--compute-capability", "9"], "compute_capabilities has '9'"),
    ],
)
def test_options_of_the_command(conditional_checkpoint: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(build_engine.command, [str(conditional_checkpoint), "--steps", "3", *arguments])
    assert isinstance(result.exception, OptionError)
    assert message in str(result.exception)


def test_the_library_can_be_named(conditional_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
    for name in libraries.TITLES:
        arguments = [str(conditional_checkpoint), "--engine", "tensorrt", "--tensorrt-library", name]
        error = CliRunner().invoke(build_engine.command, arguments).exception
        assert isinstance(error, MissingDependencyError)
        assert str(error).startswith(f"{name} is not installed; get it with `pip install tensorrt")


def test_the_command_shows_what_it_would_build(conditional_checkpoint: Path) -> None:
    arguments = ["--steps", "3", "--dry-run", "--engine", "tensorrt", "--engine", "auto", "--precision", "bfloat16"]
    result = CliRunner().invoke(build_engine.command, [str(conditional_checkpoint), *arguments])
    assert "tensorrt in bfloat16, auto, float32 otherwise, batches of 16" in result.output


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"neither .* `pip install 'pysdk-diffusion\[tensorrt\]'`"):
        libraries.find()
    with pytest.raises(MissingDependencyError, match="tensorrt is not installed; get it with `pip install tensorrt`"):
        libraries.find("tensorrt")


@rtx
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_profile": (8, 8, 16)}, "batch_size is 4, expected 8 to 16, the batch_profile"),
        ({"compute_capabilities": ("5.0",)}, r"compute_capabilities has 5\.0, TensorRT-RTX .* builds for 7\.5, 8\.0"),
        ({"timing_cache": Path("a.cache")}, r"timing_cache is 'a\.cache', but TensorRT-RTX .* measures no tactics"),
    ],
)
def test_options_that_do_not_fit(network: Network, data: bytes, library: Library, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build_tensorrt(network, data, 4, TensorrtOptions(**options), 0.0, library=library)


@rtx
@no_device
def test_an_engine_without_weights_needs_a_device(network: Network, data: bytes, library: Library) -> None:
    options = TensorrtOptions(strip_weights=True)
    with pytest.raises(ExportError, match="needs a GPU to build an engine without weights, and there is no NVIDIA"):
        build_tensorrt(network, data, 4, options, 0.0, library=library)


@rtx
@no_device
def test_a_timing_cache_that_cannot_be_used_is_not_overwritten(library: Library, tmp_path: Path) -> None:
    """For bytes it cannot read the library makes an empty cache, and says so to the logger alone."""
    path, log = tmp_path / "a.cache", Log()
    path.write_bytes(b"of elsewhere" * 20)
    logger = library.logger(log)
    config = library.make("Builder", log, logger).create_builder_config()
    with pytest.raises(ExportError, match=r"the timing cache '.*a\.cache' cannot be used here \(.*\): it may be of"):
        read_timing_cache(config, path, log)


@rtx
def test_networks_that_tensorrt_does_not_take(network: Network, data: bytes, library: Library) -> None:
    def build(changed: bytes) -> None:
        build_tensorrt(network, changed, 4, TensorrtOptions(), 0.0, library=library)

    with pytest.raises(ExportError, match=r"TensorRT-RTX [0-9.]+ cannot read the network: "):
        build(b"nonsense")
    model = onnx.load_from_string(data)
    model.graph.node[-1].output[0] = "almost"
    model.graph.node.append(onnx.helper.make_node("Det", ["almost"], ["output"], name="strange"))
    with pytest.raises(ExportError, match=r"cannot read the network: .*strange"):
        build(model.SerializeToString())
    model = onnx.load_from_string(data)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "y"
    with pytest.raises(ExportError, match=r"reads the network wrongly: the network has .*; expected"):
        build(model.SerializeToString())


# Engines of others.


@rtx
def test_an_engine_file_is_known_by_its_header(built: Built, library: Library, tmp_path: Path) -> None:
    engine = built.files["tensorrt.engine"]
    assert engine[:4] == b"vtrt"
    assert struct.unpack_from("<Q", engine, 16) == (len(engine),)
    assert ".".join(map(str, engine[24:28])) == library.version
    path = tmp_path / "model.bin"
    path.write_bytes(engine)
    assert model.matches(str(path))
    with pytest.raises(CheckpointError, match=rf"engine of TensorRT-RTX {library.version}: ") as caught:
        load_network(str(path), {})
    assert "build from the ONNX file it was made of instead" in str(caught.value)
    if device() is None:
        assert "cannot load the engine: " in str(caught.value)
        assert "CUDA driver" in str(caught.value)
    path.write_bytes(engine[:1000])
    with pytest.raises(CheckpointError, match=rf"that was cut off: it has 1000 of {len(engine)} bytes"):
        load_network(str(path), {})
