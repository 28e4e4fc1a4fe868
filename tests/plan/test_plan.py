"""What is written comes back."""

import json
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.plan_files import MANIFEST, MEMBERS, contents

from pysdk.errors import OptionError, PlanError
from pysdk.plan.manifest import (
    ClipInfo,
    DefaultsInfo,
    EngineInfo,
    Manifest,
    ModelInfo,
    ScheduleInfo,
)
from pysdk.plan.reader import Plan
from pysdk.plan.writer import write_plan


def test_round_trip(path: Path) -> None:
    manifest, members = contents(path)
    assert members == MEMBERS
    assert msgspec.structs.replace(manifest, members={}) == MANIFEST
    assert write_plan(path, manifest, MEMBERS) == manifest


finite = st.floats(-1e9, 1e9)
words = st.from_regex(r"[a-z0-9][a-z0-9._+-]{0,20}", fullmatch=True)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,99}", fullmatch=True).filter(lambda name: name != "manifest.json")
lines = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=50)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Manifest, dict[str, bytes]]:
    members = draw(st.dictionaries(names, st.binary(min_size=1, max_size=300), max_size=5))
    members["network.onnx"] = draw(st.binary(min_size=1, max_size=300))
    engine = st.builds(
        EngineInfo,
        kind=words,
        member=st.sampled_from(sorted(members)),
        precision=words,
        batch_size=st.integers(1, 65536),
        requires=st.dictionaries(words, lines, max_size=3),
        seconds_per_step=st.none() | st.floats(1e-9, 1e6),
        max_abs_error=st.none() | st.floats(0, 1e9),
        notes=lines,
    )
    channels, classes = draw(st.integers(1, 4)), draw(st.none() | st.integers(1, 5))
    learned = draw(st.booleans())
    low, high = sorted(draw(st.lists(finite, min_size=2, max_size=2, unique=True)))
    options = st.booleans() | st.integers(-(2**53), 2**53) | finite | lines
    manifest = Manifest(
        pysdk_version=draw(lines),
        created_by=draw(lines),
        model=ModelInfo(
            name=draw(lines),
            shape=(channels, draw(st.integers(1, 16384)), draw(st.integers(1, 16384))),
            out_channels=channels * (2 if learned else 1),
            prediction_type=draw(st.sampled_from(["epsilon", "sample", "v_prediction"])),
            variance_type="learned_range" if learned else draw(st.sampled_from(["fixed_small", "fixed_large"])),
            value_range=(low, high),
            num_classes=classes,
            null_label=draw(st.integers(0, classes)) if classes else None,
            class_names=tuple(draw(st.lists(lines, min_size=classes, max_size=classes))) if classes else None,
            description=draw(lines),
            license=draw(lines),
        ),
        schedule=ScheduleInfo(
            name=draw(words),
            betas=tuple(draw(st.lists(st.floats(5e-324, 1, exclude_max=True), min_size=1, max_size=20))),
        ),
        defaults=DefaultsInfo(
            solver=draw(words),
            steps=draw(st.none() | st.integers(1, 10**6) | st.sampled_from(["ddim50", "250", "10,10,5"])),
            guidance_scale=draw(st.none() | finite),
            options=draw(st.dictionaries(words, options, max_size=4)),
            clip=ClipInfo(
                kind=draw(st.sampled_from(["none", "clamp", "dynamic"])),
                max_threshold=draw(st.none() | st.floats(1, 1e9)),
            ),
        ),
        engines=tuple(draw(st.lists(engine, max_size=3))),
    )
    return manifest, members


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans())
def test_round_trip_of_any_plan(tmp_path: Path, plan: tuple[Manifest, dict[str, bytes]]) -> None:
    manifest, members = plan
    path = tmp_path / "any.plan"
    written = write_plan(path, manifest, members)
    first = path.read_bytes()
    assert contents(path) == (written, members)
    assert msgspec.structs.replace(written, members={}) == manifest
    assert [type(value) for _, value in sorted(written.defaults.options.items())] == [
        type(value) for _, value in sorted(manifest.defaults.options.items())
    ]
    write_plan(path, manifest, dict(reversed(members.items())))
    assert path.read_bytes() == first


def test_betas_keep_every_bit(path: Path) -> None:
    betas = np.random.default_rng(0).uniform(1e-12, 1, 4000)
    schedule = ScheduleInfo(name="x", betas=betas)  # type: ignore[arg-type]  # arrays are written as lists
    write_plan(path, msgspec.structs.replace(MANIFEST, schedule=schedule), MEMBERS)
    assert np.array_equal(np.array(contents(path)[0].schedule.betas), betas)


def test_members_from_files_and_buffers_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(MEMBERS["network.onnx"])
    weights = np.arange(64, dtype=np.uint8)
    write_plan(tmp_path / "b.plan", MANIFEST, {"network.onnx": tmp_path / "source", "cpu.weights": weights.data})
    assert (tmp_path / "b.plan").read_bytes() == path.read_bytes()


def test_other_zip_readers_agree(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", "cpu.weights", "network.onnx"]
        assert {name: archive.read(name) for name in MEMBERS} == MEMBERS


def test_members_are_mapped_and_aligned(path: Path) -> None:
    with Plan.open(path) as plan:
        for name in MEMBERS:
            view = plan.member(name)
            array = np.frombuffer(view, np.uint8)
            assert view.readonly
            assert not array.flags.writeable
            assert array.ctypes.data % 64 == 0
            again = np.frombuffer(plan.member(name), np.uint8)
            assert array.ctypes.data == again.ctypes.data


def test_views_outlive_the_plan(path: Path) -> None:
    plan = Plan.open(path)
    array = np.frombuffer(plan.member("cpu.weights"), np.uint8)
    plan.close()
    plan.close()
    with pytest.raises(PlanError, match="is closed; open it again"):
        plan.member("cpu.weights")
    del plan
    path.unlink()
    assert array.tobytes() == MEMBERS["cpu.weights"]


def test_an_open_plan_survives_its_replacement(path: Path) -> None:
    with Plan.open(path) as plan:
        write_plan(path, MANIFEST, {"network.onnx": b"another"})
        assert bytes(plan.member("network.onnx")) == MEMBERS["network.onnx"]
    assert contents(path)[1] == {"network.onnx": b"another"}


def test_unknown_member(path: Path) -> None:
    with Plan.open(path) as plan, pytest.raises(OptionError, match="has no 'x', it has"):
        plan.member("x")


def test_describe_and_summary(path: Path) -> None:
    with Plan.open(path) as plan:
        described = json.loads(json.dumps(plan.describe()))
        assert described["size"] == path.stat().st_size
        assert described["schedule"] == {"name": "linear", "num_timesteps": 3, "first_beta": 1e-4, "last_beta": 0.02}
        assert described["engines"][0]["kind"] == "onnxruntime"
        assert "tiny: 1x28x28, 10 classes, guidance, 1,234 parameters" in plan.summary()
        assert "engine    onnxruntime float32, batch 16" in plan.summary()
        assert "onnxruntime float32" in repr(plan)
