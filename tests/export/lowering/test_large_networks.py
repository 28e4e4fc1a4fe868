"""Networks whose weights do not fit into one ONNX file: the same plan with a second member, network.data.

The limit is lowered here, so that tiny networks take that way.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from pysdk import Plan, Sampler
from pysdk.engines import registry
from pysdk.errors import EngineError, ExportError, OptionError, PlanError
from pysdk.export import build_engine
from pysdk.export.build import build, check_size
from pysdk.export.dry_run import readable
from pysdk.export.engines.native import tactics
from pysdk.export.importers import load_network
from pysdk.export.lowering import onnx_files, torch_to_onnx
from pysdk.onnx_file.model import read
from pysdk.plan.manifest import EngineInfo
from pysdk.plan.writer import write_plan

pytestmark = pytest.mark.slow

KINDS = ["native", "onnxruntime"]
OPTIONS = {
    "prediction_type": "epsilon",
    "variance_type": "learned_range",
    "schedule": "linear",
    "num_classes": "3",
    "null_label": "3",
}


@pytest.fixture
def lowered_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network is too large for one file."""
    monkeypatch.setattr(onnx_files, "MAX_BYTES", 1)


@pytest.fixture(scope="module")
def both(
    conditional_checkpoint: Path, conditional_plan: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Plans of one network, the ordinary one and one with network.data."""
    folder, graph = tmp_path_factory.mktemp("large"), members(conditional_plan)["network.onnx"]
    options: dict[str, Any] = {"solver": "ddim", "steps": 5, "batch_size": 2, "check_seconds": 0}
    (folder / "temporary").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tactics, "measured", lambda program, profile: program)  # the same in both
        patch.setattr(tempfile, "tempdir", str(folder / "temporary"))
        with pytest.MonkeyPatch.context() as lower:
            lower.setattr(onnx_files, "MAX_BYTES", 1)
            build(conditional_checkpoint, folder / "large", **options)
        patch.setattr(torch_to_onnx, "export_onnx", lambda network: onnx_files.OnnxFiles(graph))
        build(conditional_checkpoint, folder / "ordinary", **options)
    assert not list((folder / "temporary").iterdir())  # of the weights
    return folder / "ordinary", folder / "large"


@pytest.fixture(scope="module")
def large(both: tuple[Path, Path]) -> Path:
    return both[1]


def members(path: Path) -> dict[str, bytes]:
    with Plan.open(path) as plan:
        return {name: bytes(plan.member(name)) for name in plan.manifest.members}


def engine_of(path: Path, kind: str) -> EngineInfo:
    with Plan.open(path) as plan:
        return next(info for info in plan.manifest.engines if info.kind == kind)


def test_the_weights_are_the_second_member(both: tuple[Path, Path]) -> None:
    ordinary, large = (members(path) for path in both)
    assert set(large) - set(ordinary) == {"network.data"}
    expected = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(ordinary["network.onnx"]).graph.initializer
    }
    graph = onnx.load_from_string(large["network.onnx"]).graph
    weights = memoryview(large["network.data"])
    found = read(large["network.onnx"], len(weights)).stored(weights)
    assert {tensor.name for tensor in graph.initializer} == set(expected)
    assert set(found) == {name for name, values in expected.items() if values.nbytes >= onnx_files.SMALLEST}
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])
    assert len(large["native.constants"]) == len(ordinary["native.constants"])
    assert b'"source":"data"' in large["native.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_the_same_bit_for_bit(both: tuple[Path, Path], kind: str) -> None:
    images = []
    for path in both:
        with Sampler(path, engine=kind, threads=1) as sampler:
            assert sampler.info["running"]["engine"] == kind
            images.append(sampler.sample(3, labels=[0, 1, 2], guidance_scale=2.0, output="float32"))
    np.testing.assert_array_equal(images[0], images[1])


def test_the_engine_lives_longer_than_the_plan(large: Path) -> None:
    info = engine_of(large, "onnxruntime")
    with Plan.open(large) as plan:
        model, engine = plan.manifest.model, registry.load(plan, info, 1)
    with Sampler(large, engine="onnxruntime", threads=1) as sampler:
        sampler.plan.close()
        assert np.isfinite(sampler.sample(1, output="float32")).all()
    assert model.name == "tiny"
    assert "ONNX Runtime" in engine.description


def test_info(both: tuple[Path, Path]) -> None:
    for path, is_large in zip(both, (False, True), strict=True):
        with Plan.open(path) as plan:
            assert ("bytes in network.data" in plan.summary()) == is_large
            for info in plan.manifest.engines:
                assert ("network.data" in info.data) == is_large


# Damage.


def repacked(large: Path, path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """The plan with another graph, its checksums right."""
    files = members(large)
    graph = onnx.load_from_string(files["network.onnx"])
    change(graph)
    with Plan.open(large) as plan:
        write_plan(path, plan.manifest, {**files, "network.onnx": graph.SerializeToString()})
    return path


def outside(graph: onnx.ModelProto) -> TensorProto:
    return next(tensor for tensor in graph.graph.initializer if tensor.data_location == TensorProto.EXTERNAL)


def entry(key: str, value: str) -> Callable[[onnx.ModelProto], object]:
    def change(graph: onnx.ModelProto) -> None:
        next(pair for pair in outside(graph).external_data if pair.key == key).value = value

    return change


def constant_node(graph: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto()
    tensor.CopyFrom(outside(graph))
    graph.graph.node.append(helper.make_node("Constant", [], ["elsewhere"], value=tensor))


def sparse(graph: onnx.ModelProto) -> None:
    values = outside(graph)
    graph.graph.sparse_initializer.add(values=values, dims=values.dims)


def function(graph: onnx.ModelProto) -> None:
    constant_node(graph)
    graph.functions.add(name="f", domain="d", node=[graph.graph.node.pop()])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry("location", "/etc/hostname"), r"is in '/etc/hostname'; only initializers may be in another file"),
        (entry("location", "../network.data"), r"is in '../network.data'; only"),
        (entry("location", "*/_ORT_MEM_ADDR_/*"), r"is in '\*/_ORT_MEM_ADDR_/\*'; only"),
        (entry("location", ""), r"is in ''; only"),
        (entry("offset", str(2**40)), r"ends at byte 109951\d+ of network.data, which has \d+$"),
        (entry("offset", "65"), r"is 65, expected a multiple of 64"),
        (entry("offset", "-64"), r"the offset of tensor .* is '-64', expected a number of bytes"),
        (entry("offset", "9" * 40), r"is '9+', expected a number of bytes"),
        (entry("length", "4"), r"has 4 bytes in network.data, its shape \[.*\] has another size"),
        (entry("length", "many"), r"the length of tensor .* is 'many', expected a number of bytes"),
        (lambda graph: outside(graph).dims.append(2), r"its shape \[.*\] has another size"),
        (lambda graph: outside(graph).dims.append(0), r"its shape \[.*\] has another size"),
        (lambda graph: setattr(outside(graph), "data_type", 8), r"is of type 8, which is not taken"),
        (lambda graph: setattr(outside(graph), "data_type", 2), r"is of type 2, which network.data does not hold"),
        (lambda graph: setattr(outside(graph), "data_type", 11), r"its shape \[.*\] has another size"),
        (lambda graph: outside(graph).external_data.pop(), r"has \['location', 'offset'\] for its place"),
        (lambda graph: outside(graph).external_data.add(key="checksum", value="0"), r"expected location, offset and"),
        (lambda graph: outside(graph).external_data.add(key="offset", value="0"), r"has two entries 'offset'"),
        (lambda graph: outside(graph).ClearField("data_location"), r"for its place, expected"),
        (lambda graph: graph.graph.initializer.append(outside(graph)), r"has two initializers"),
        (constant_node, r"is no initializer of the graph, and in 'network.data'"),
        (sparse, r"a GraphProto has field 15 of wire type 2, which pysdk does not know or does not take"),
        (function, r"is no initializer of the graph, and in 'network.data'"),
    ],
)
def test_graphs_that_ask_for_something_else(
    large: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], object], message: str
) -> None:
    path = repacked(large, tmp_path / "a.plan", change)
    with pytest.raises(EngineError, match=message) as caught:
        Sampler(path, engine="onnxruntime", threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["/etc/hostname", "secret.data", "network.data"])
def test_ordinary_plans_name_no_file_either(
    both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """Not even one that is there, in the folder where ONNX Runtime would look for it."""

    def change(graph: onnx.ModelProto) -> None:
        tensor = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        (tmp_path / "secret.data").write_bytes(tensor.raw_data)
        (tmp_path / "network.data").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    path = repacked(both[0], tmp_path / "a.plan", change)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=r"only initializers may|which the plan does not give to the engine"):
        Sampler(path, engine="onnxruntime", threads=1)


def test_a_name_is_no_place(both: tuple[Path, Path], tmp_path: Path) -> None:
    def change(graph: onnx.ModelProto) -> None:
        graph.graph.node[0].name = "location of nothing"

    with Sampler(repacked(both[0], tmp_path / "a.plan", change), engine="onnxruntime", threads=1) as sampler:
        sampler.sample(1)


@pytest.mark.parametrize("cut", [1, 40, 1000])
def test_graphs_that_end_early(large: Path, cut: int) -> None:
    data = members(large)["network.onnx"][:-cut]
    with pytest.raises(EngineError, match="is not an ONNX file as protobuf writes it, or damaged"):
        read(data, 10**9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_of_the_weights(large: Path, tmp_path: Path, kind: str) -> None:
    data = bytearray(large.read_bytes())
    at = data.find(members(large)["network.data"][:4096])
    data[at + 100] ^= 1
    (tmp_path / "a.plan").write_bytes(data)
    with pytest.raises(PlanError, match=r"'network\.data' has SHA-256"):
        Sampler(tmp_path / "a.plan", engine=kind, threads=1)


def test_weights_that_are_missing(large: Path, tmp_path: Path) -> None:
    files = members(large)
    del files["network.data"]
    with Plan.open(large) as plan:
        manifest = plan.manifest
    with pytest.raises(OptionError, match=r"engines\[0\].data is 'network.data', expected one of"):
        write_plan(tmp_path / "a.plan", manifest, files)
    for kind, names, message in (
        ("onnxruntime", (), "is in network.data, which the plan does not give to the engine"),
        ("onnxruntime", ("native.constants",), "ONNX Runtime reads network.data beside the network, the plan names"),
        ("native", ("network.onnx", "native.constants"), "program is not valid: .* a part beyond its source"),
        ("native", (), "program is not valid: .* a part beyond its source"),
    ):
        info = msgspec.structs.replace(engine_of(large, kind), data=names)
        write_plan(tmp_path / "a.plan", msgspec.structs.replace(manifest, engines=(info,)), members(large))
        with pytest.raises(EngineError, match=message):
            Sampler(tmp_path / "a.plan", threads=1)


def test_programs_that_read_beyond_the_weights(large: Path, tmp_path: Path) -> None:
    files = members(large)
    head = json.loads(files["native.json"])
    part = next(part for weight in head["weights"] for part in weight["parts"] if part["source"] == "data")
    part["offset"] = len(files["network.data"]) - 4
    with Plan.open(large) as plan:
        write_plan(tmp_path / "a.plan", plan.manifest, {**files, "native.json": json.dumps(head).encode()})
    with pytest.raises(EngineError, match="which has a part beyond its source; build the plan again"):
        Sampler(tmp_path / "a.plan", engine="native", threads=1)


# Building.


def test_no_place_for_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(ExportError, match=r"cannot keep the weights in .*none' \(No such file.*; set TMPDIR"):
        onnx_files.WeightsFile()


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(ExportError, match=r"\(No space left on device\); set TMPDIR to a folder with room"):
        onnx_files.WeightsFile().add(np.zeros(4, np.float32))


def test_what_is_too_large_is_said_before_the_work(
    conditional_checkpoint: Path, lowered_limit: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_network(str(conditional_checkpoint), {})
    with pytest.raises(ExportError, match=r"'tiny' has .* of weights in float32; TensorRT's parser is given one ONNX"):
        check_size(network, ["tensorrt"])
    check_size(network, ["auto"])
    monkeypatch.setattr("pysdk.export.build.MAX_MEMBER_BYTES", 1000)
    for arguments in ([], ["--dry-run"]):
        outcome = CliRunner().invoke(
            build_engine.command, [str(conditional_checkpoint), "-o", str(tmp_path / "a.plan"), *arguments]
        )
        assert isinstance(outcome.exception, ExportError)
        assert "of weights in float32; a plan is smaller than 4 GiB" in str(outcome.exception)


def test_the_size_that_a_dry_run_says(conditional_checkpoint: Path) -> None:
    network = load_network(str(conditional_checkpoint), {})
    assert network.size == 4 * (network.model.parameters or 0)
    found = [readable(size) for size in (553_800_000 * 4, 998_000_000, 999_600_000, 12_340)]
    assert found == ["2.22 GB", "998 MB", "1 GB", "0.0123 MB"]


@pytest.mark.parametrize("location", ["weights.bin", "network.data"])
def test_onnx_files_with_weights_beside_them(
    both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """A source may call its file as the plan does."""
    graph = onnx.load_from_string(members(both[0])["network.onnx"])
    source = tmp_path / "denoiser.onnx"
    onnx.save_model(graph, str(source), save_as_external_data=True, location=location, size_threshold=0)
    images = []
    for limit in (onnx_files.MAX_BYTES, 1):
        monkeypatch.setattr(onnx_files, "MAX_BYTES", limit)
        path = tmp_path / f"{limit}.plan"
        build(source, path, engine="onnxruntime", batch_size=1, steps=3, importer_options=OPTIONS)
        assert ("network.data" in members(path)) == (limit == 1)
        with Sampler(path, threads=1) as sampler:
            images.append(sampler.sample(1, labels=1, output="float32"))
    np.testing.assert_array_equal(images[0], images[1])
