"""Plans built again from the network they keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit.tiny_networks import toy_engine, write_toy_plan
from msgspec.structs import replace

from pysdk import Plan, Sampler
from pysdk.errors import CheckpointError, ExportError, PlanError
from pysdk.export.build import build
from pysdk.export.importers import load_network
from pysdk.export.lowering import onnx_files
from pysdk.plan.manifest import ClassifierInfo, ClipInfo, DefaultsInfo
from pysdk.plan.writer import write_plan


def changed(source: Path, path: Path, drop: str = "", **fields: object) -> Path:
    """The plan with other fields in its manifest, without one of its files."""
    with Plan.open(source) as plan:
        members = {name: bytes(plan.member(name)) for name in plan.manifest.members if name != drop}
        write_plan(path, replace(plan.manifest, **fields), members)
    return path


def test_a_plan_is_built_again_in_its_place(
    conditional_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that it says of the network stays; its engines are those asked for, and it says which it had besides."""
    defaults = DefaultsInfo(solver="ddim", steps=3, options={"eta": 0.5}, clip=ClipInfo(kind="dynamic", ratio=0.9))
    with Plan.open(conditional_plan) as plan:
        old, network = plan.manifest, bytes(plan.member("network.onnx"))
    model = replace(old.model, description="What nobody can guess.", license="MIT")
    engines = (*old.engines, toy_engine(kind="tensorrt", precision="float16"))
    first = changed(conditional_plan, tmp_path / "first.plan", model=model, defaults=defaults, engines=engines)
    path = tmp_path / "again.plan"
    path.write_bytes(first.read_bytes())
    manifest = build(path, path, engine="onnxruntime", batch_size=4, check_seconds=0)
    assert (manifest.model, manifest.schedule, manifest.defaults) == (model, old.schedule, defaults)
    assert [(info.kind, info.batch_size) for info in manifest.engines] == [("onnxruntime", 4)]
    assert "from a plan, not compared again" in manifest.engines[0].notes
    lost = [f"{info.kind} {info.precision}" for info in engines if info.kind != "onnxruntime"]
    assert f"not built again: {', '.join(lost)}; add them with --engine and --precision" in capsys.readouterr().err
    with Plan.open(path) as again:
        assert bytes(again.member("network.onnx")) == network
        assert list(again.manifest.members) == ["network.onnx"]
    with (
        Sampler(path, threads=1) as sampler,
        Sampler(first, engine="onnxruntime", threads=1) as other,
    ):
        np.testing.assert_array_equal(sampler.sample(3), other.sample(3))


@pytest.mark.slow
def test_the_weights_of_a_large_network_are_read_from_the_plan_that_is_replaced(
    conditional_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.plan"
    monkeypatch.setattr(onnx_files, "MAX_BYTES", 1)  # every network is too large for one file
    build(conditional_checkpoint, path, engine="onnxruntime", solver="ddim", steps=3, batch_size=2, check_seconds=0)
    with Plan.open(path) as plan, Sampler(path, threads=1) as sampler:
        images, members = sampler.sample(2), plan.manifest.members
    assert set(members) == {"network.onnx", "network.data"}
    again = build(path, path, engine="onnxruntime", check_seconds=0)
    assert again.members == members
    assert again.engines[0].batch_size == 2
    with Sampler(path, threads=1) as sampler:
        np.testing.assert_array_equal(sampler.sample(2), images)


def test_a_plan_under_another_name_and_one_that_is_none(conditional_plan: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(conditional_plan.read_bytes())
    with Plan.open(conditional_plan) as plan:
        assert load_network(str(path), {}).previous == plan.manifest.engines
    damaged = bytearray(path.read_bytes())
    damaged[-100_000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(PlanError, match=r"a\.bin' is damaged or edited"):
        load_network(str(path), {})
    other = tmp_path / "b.plan"
    other.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(PlanError, match=r"b\.plan' is not a plan"):
        load_network(str(other), {})
    with pytest.raises(ExportError, match=r"load the checkpoint: plan '.*b\.plan' is not a plan"):
        build(other, other)


def test_what_would_be_lost_is_refused(conditional_plan: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="a plan takes no option 'num_classes'"):
        build(conditional_plan, tmp_path / "b.plan", importer_options={"num_classes": "3"})
    classifier = ClassifierInfo(name="judge", member="network.onnx", num_classes=3)
    path = changed(conditional_plan, tmp_path / "c.plan", classifier=classifier)
    with pytest.raises(
        CheckpointError, match="has the classifier 'judge', which a new plan would not have; build from"
    ):
        load_network(str(path), {})
    raw = toy_engine(kind="tensorrt", precision="unknown", member="tensorrt.engine")
    path = tmp_path / "d.plan"
    with Plan.open(conditional_plan) as plan:
        write_plan(path, replace(plan.manifest, engines=(raw,)), {"tensorrt.engine": b"ftrt"})
    with pytest.raises(CheckpointError, match=r"keeps no network\.onnx, as it was made of a finished engine; build"):
        load_network(str(path), {})


def test_weights_elsewhere_are_not_opened(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = write_toy_plan(tmp_path / "toy.plan")
    with Plan.open(path) as plan:
        model = onnx.load_from_string(bytes(plan.member("network.onnx")))
        tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
        tensor.external_data.add(key="location", value="secrets")
        model.graph.initializer.append(tensor)
        write_plan(path, plan.manifest, {"network.onnx": model.SerializeToString()})
    with pytest.raises(
        CheckpointError, match="cannot be built again: the network is refused: tensor 'w' is in 'secrets'; only"
    ):
        load_network(str(path), {})
