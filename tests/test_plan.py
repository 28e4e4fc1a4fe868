"""Plans: what is written comes back, and nothing else does."""

import errno
import io
import json
import os
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pysdk import plan as plan_module
from pysdk.container import directory, lay_out, local_header
from pysdk.errors import OptionError, OptionTypeError, OutputError, PlanError, PlanNotFoundError
from pysdk.manifest import (
    ClipInfo,
    DefaultsInfo,
    EngineInfo,
    Manifest,
    ModelInfo,
    ScheduleInfo,
    encode_manifest,
    parse_manifest,
)
from pysdk.plan import Plan, add_engine, write_plan

MODEL = ModelInfo(name="tiny", shape=(1, 28, 28), out_channels=1, num_classes=10, null_label=10, parameters=1234)
MANIFEST = Manifest(
    pysdk_version="0.1.0",
    model=MODEL,
    schedule=ScheduleInfo(name="linear", betas=(1e-4, 0.01, 0.02)),
    engines=(EngineInfo(kind="onnxruntime", member="network.onnx", precision="float32", batch_size=16),),
)
MEMBERS: dict[str, Any] = {"network.onnx": b"graph" * 9, "cpu.weights": bytes(range(64))}
BUILD_AGAIN = "build it again with `pysdk build`"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_plan(tmp_path / "a.plan", MANIFEST, MEMBERS)
    return tmp_path / "a.plan"


def contents(path: Path) -> tuple[Manifest, dict[str, bytes]]:
    with Plan.open(path) as plan:
        plan.verify()
        return plan.manifest, {name: bytes(plan.member(name)) for name in plan.manifest.members}


def refusal(path: Path) -> str:
    with pytest.raises(PlanError) as caught:
        contents(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def pack(manifest: bytes, members: dict[str, bytes]) -> bytes:
    """A container with right checksums around any manifest."""
    parts = {"manifest.json": manifest, **members}
    entries = lay_out((name, len(data), zlib.crc32(data)) for name, data in parts.items())
    return b"".join(local_header(entry) + parts[entry.name] for entry in entries) + directory(entries)


def edited(path: Path, **changes: Any) -> None:
    """Rewrite the manifest of a plan with right checksums; a key a__b means the field b of a."""
    manifest, members = contents(path)
    plain = json.loads(encode_manifest(manifest))
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = plain
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place[parent]
        place[last] = value
    path.write_bytes(pack(json.dumps(plain).encode(), dict(sorted(members.items()))))


# What is written comes back.


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


def test_add_engine(path: Path) -> None:
    engine = EngineInfo(kind="cpu", member="cpu.weights", precision="float32", batch_size=8)
    for data in (b"first", b"second"):
        add_engine(path, engine, data)
        manifest, members = contents(path)
        assert manifest.engines == (engine, *MANIFEST.engines)
        assert members == {**MEMBERS, "cpu.weights": data}
    with pytest.raises(OptionError, match="cannot replace network"):
        add_engine(path, msgspec.structs.replace(engine, member="network.onnx"), b"x")


# Nothing else does.


def test_no_plan_there(tmp_path: Path) -> None:
    with pytest.raises(PlanNotFoundError, match=r"there is no plan at .*; build one with `pysdk build`"):
        Plan.open(tmp_path / "missing.plan")
    with pytest.raises(OptionTypeError, match="got NoneType"):
        Plan.open(None)  # type: ignore[arg-type]


def test_files_that_are_no_plans(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert "is a folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe or a device" in refusal(tmp_path / "pipe")
    path.write_bytes(b"")
    assert "is empty" in refusal(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    assert refusal(path).endswith("fetch it with `git lfs pull`")
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(3))
    for data in (b"\x08\x07onnx", b"P", b"PK\3\4", bytes(1000), b"PK\5\6" + bytes(18), buffer.getvalue()):
        path.write_bytes(data)
        message = refusal(path)
        assert "is not a plan" in message
        assert message.endswith(BUILD_AGAIN)


def test_no_permission(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read (Permission denied); check its permissions" in refusal(path)


def test_an_edited_member_is_named_with_both_digests(path: Path) -> None:
    data = path.read_bytes().replace(b"graphgraph", b"graphGraph", 1)
    path.write_bytes(data)
    with Plan.open(path) as plan:
        expected = plan.manifest.members["network.onnx"].sha256[:12]
        assert bytes(plan.member("cpu.weights")) == MEMBERS["cpu.weights"]  # checked one by one
    message = refusal(path)
    assert "'network.onnx' has SHA-256 " in message
    assert f"the manifest says {expected}; {BUILD_AGAIN}" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format_version": 2}, "has format version 2, this pysdk reads version 1"),
        ({"format_version": "1"}, "field format_version Expected `int`, got `str`"),
        ({"model__shape": [1, 28]}, "field model.shape"),
        ({"model__shape": [1, 28, 0]}, "field model.shape[2]"),
        ({"model__prediction_type": "noise"}, "field model.prediction_type"),
        ({"model__out_channels": 2}, "model.out_channels is 2, expected 1"),
        ({"model__null_label": 11}, "model.null_label is 11"),
        ({"model__class_names": ["a"]}, "model.class_names has 1 names"),
        ({"model__value_range": [1, 1]}, "model.value_range"),
        ({"model__surprise": 1}, "unknown field `surprise`"),
        ({"model__\x1b[2J\n": 1}, "unknown field `?[2J?`"),
        ({"model__" + "x" * 5000: 1}, "xxx; build"),
        ({"model__name": "\x1b[31mred"}, "field model.name"),
        ({"model__description": "a\tb\x07"}, "field model.description"),
        ({"schedule__betas": []}, "field schedule.betas"),
        ({"schedule__betas": [0.5, 0.0]}, "field schedule.betas"),
        ({"schedule__betas": [0.5, 1.5]}, "field schedule.betas"),
        ({"schedule__betas": [1.0, 0.5]}, "schedule.betas has 1.0 at [0]"),
        ({"schedule__betas": [None]}, "field schedule.betas"),
        ({"defaults__options": {"a": [1]}}, "field defaults.options"),
        ({"defaults__options": {"a": 2**60}}, "field defaults.options"),
        ({"defaults__clip__ratio": 0}, "field defaults.clip.ratio"),
        ({"engines__0__member": "cpu2"}, "engines[0].member is 'cpu2'"),
        ({"engines__0__member": "../x"}, "field engines[0].member"),
        ({"engines__0__batch_size": 0}, "field engines[0].batch_size"),
        ({"members": {}}, "has no network.onnx"),
        ({"members__network.onnx__size": 44}, "'network.onnx' has 44 bytes in the manifest and 45 bytes in the file"),
        ({"members__cpu.weights__sha256": "0"}, "sha256"),
    ],
)
def test_manifests_that_are_not_valid(path: Path, changes: dict[str, Any], expected: str) -> None:
    edited(path, **{key: value for key, value in changes.items() if "." not in key})
    for key, value in changes.items():
        if "." in key:
            _, name, field = key.split("__")
            members = json.loads(encode_manifest(contents(path)[0]))["members"]
            members[name][field] = value
            edited(path, members=members)
    message = refusal(path)
    assert expected in message
    assert message.endswith(BUILD_AGAIN)


def test_members_must_be_listed(path: Path) -> None:
    manifest, members = contents(path)
    path.write_bytes(pack(encode_manifest(manifest), {**members, "z": b"unlisted"}))
    assert "'z' has no entry in the manifest and 8 bytes in the file" in refusal(path)
    path.write_bytes(pack(encode_manifest(manifest), {"network.onnx": members["network.onnx"]}))
    assert "'cpu.weights' has 64 bytes in the manifest and no entry in the file" in refusal(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        b'{"a":' * 50_000,
        b'{"format_version":' + b"9" * 5000 + b"}",
        b" " * (5 << 20),
    ],
)
def test_manifests_that_are_not_even_json(path: Path, data: bytes) -> None:
    path.write_bytes(pack(data, MEMBERS))
    assert "manifest" in refusal(path)


def repacked(path: Path, **options: Any) -> None:
    manifest, members = contents(path)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in {"manifest.json": encode_manifest(manifest), **members}.items():
            archive.writestr(name, data)


def test_zips_of_another_layout(path: Path) -> None:
    original = path.read_bytes()
    head = encode_manifest(contents(path)[0])
    repacked(path)
    assert "not as pysdk writes it (repacked or edited)" in refusal(path)
    path.write_bytes(original)
    repacked(path, compression=zipfile.ZIP_DEFLATED)
    assert "is compressed or encrypted" in refusal(path)
    path.write_bytes(pack(head, {"network.onnx": b"1", "cpu.weights": b"2"}))
    assert "in another order" in refusal(path)
    for name in ("../x", ".x", "A", "a/b", "x" * 101, "x\n"):
        path.write_bytes(pack(head, {name: b"1"}))
        assert "has a file named" in refusal(path)
    path.write_bytes(pack(head, {f"{index:03}": b"1" for index in range(64)}))
    assert "more than 64 files" in refusal(path)
    entries = lay_out([("manifest.json", len(head), zlib.crc32(head)), ("a", 1, 0), ("a", 1, 0)])
    path.write_bytes(
        b"".join(local_header(e) + (head, b"1", b"1")[i] for i, e in enumerate(entries)) + directory(entries)
    )
    assert "has files twice" in refusal(path)


def test_sizes_beyond_the_file_do_not_overflow(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for field in (20, 24, 42):  # both sizes and the offset of the first member
        for value in (0, 1, 2**31, 2**32 - 1):
            broken = data.copy()
            start = broken.index(b"PK\1\2")
            struct.pack_into("<I", broken, start + field, value)
            path.write_bytes(broken)
            if broken != data:
                refusal(path)


def outcome(path: Path, expected: tuple[Manifest, dict[str, bytes]]) -> bool:
    """True if refused; otherwise what was read must be what was written."""
    try:
        found = contents(path)
    except PlanError:
        return True
    assert found == expected
    return False


def test_every_single_byte_flip_is_detected(path: Path) -> None:
    expected, good = contents(path), path.read_bytes()
    bits = random.Random(0)
    for index in range(len(good)):
        for flip in (0xFF, 1 << bits.randrange(8)):
            data = bytearray(good)
            data[index] ^= flip
            path.write_bytes(data)
            assert outcome(path, expected), f"byte {index} ^ {flip:#x} went unseen"


def test_every_truncation_and_any_appendix_is_detected(path: Path) -> None:
    expected, good = contents(path), path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert outcome(path, expected)
    for tail in (b"\0", b"x" * 22, good, good[-22:]):
        path.write_bytes(good + tail)
        assert outcome(path, expected)
        path.write_bytes(tail + good)
        assert outcome(path, expected)


def test_splices_never_give_anything_else(path: Path) -> None:
    expected, good = contents(path), path.read_bytes()
    dice = random.Random(1)
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 4)):
            a, b, c = (dice.randrange(len(data) + 1) for _ in range(3))
            piece = dice.choice(
                [data[min(a, b) : max(a, b)], dice.randbytes(dice.randrange(40)), bytes(dice.randrange(9))]
            )
            data[c : c + dice.choice([0, len(piece)])] = piece
        path.write_bytes(data)
        outcome(path, expected)


def test_damaged_manifests_with_right_checksums(path: Path) -> None:
    """The schema alone must hold: what gets through reads the same again."""
    good = encode_manifest(contents(path)[0])
    dice = random.Random(2)
    tokens = [
        b"null",
        b"-1",
        b"1e999",
        b"0",
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"\\u0000",
        b"true",
        b"1e-400",
        b"\\ud800",
        b"\xc3",
    ]
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 3)):
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(4)] = dice.choice([*tokens, dice.randbytes(2)])
        try:
            manifest = parse_manifest(bytes(data))
        except PlanError:
            continue
        assert parse_manifest(encode_manifest(manifest)) == manifest


# Writing.


@pytest.mark.parametrize(
    ("manifest", "members", "expected"),
    [
        (MANIFEST, {"cpu.weights": b"1"}, "has no network.onnx"),
        (MANIFEST, {**MEMBERS, "A": b"1"}, "cannot be named 'A'"),
        (MANIFEST, {**MEMBERS, "manifest.json": b"1"}, "cannot list itself"),
        (MANIFEST, {**MEMBERS, "x": b""}, "'x' is empty"),
        (MANIFEST, {**MEMBERS, "x": Path("no-such-file")}, "cannot read 'no-such-file' for 'x'"),
        (MANIFEST, {**MEMBERS, **{f"{i}": b"1" for i in range(62)}}, "at most 63 members, got 64"),
        (msgspec.structs.replace(MANIFEST, created_by="\ud800"), MEMBERS, "cannot be encoded"),
        (msgspec.structs.replace(MANIFEST, created_by=object()), MEMBERS, "type object are not allowed"),
        (msgspec.structs.replace(MANIFEST, format_version=2), MEMBERS, "has format version 2"),
        (
            msgspec.structs.replace(MANIFEST, defaults=DefaultsInfo(guidance_scale=float("nan"))),
            MEMBERS,
            "not JSON compliant",
        ),
        (msgspec.structs.replace(MANIFEST, schedule=ScheduleInfo(name="x", betas=(2.0,))), MEMBERS, "schedule.betas"),
    ],
)
def test_what_cannot_be_read_is_not_written(
    path: Path, manifest: Manifest, members: dict[str, Any], expected: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(OptionError) as caught:
        write_plan(path, manifest, members)
    assert expected in str(caught.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_wrong_types_and_too_much(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionTypeError, match=r"'network\.onnx' is bytes or a Path, got str"):
        write_plan(path, MANIFEST, {"network.onnx": "graph"})  # type: ignore[dict-item]
    monkeypatch.setattr(plan_module, "MAX_FILE_BYTES", (1 << 23) + 10)
    with pytest.raises(OptionError, match="smaller than 4 GiB, the members given have 109 bytes"):
        write_plan(path, MANIFEST, MEMBERS)


def test_a_source_that_changes_meanwhile(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, before = tmp_path / "source", path.read_bytes()
    source.write_bytes(b"one")

    def meddle(manifest: Manifest) -> bytes:
        source.write_bytes(b"two")
        return encode_manifest(manifest)

    monkeypatch.setattr(plan_module, "encode_manifest", meddle)
    with pytest.raises(OutputError, match=r"'network\.onnx' changed while it was copied"):
        write_plan(path, MANIFEST, {"network.onnx": source})
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path, source]


FULL = """
import resource, signal, sys
from pysdk.errors import OutputError
from pysdk.plan import Plan, write_plan
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
with Plan.open(sys.argv[1]) as plan:
    try:
        write_plan(sys.argv[1], plan.manifest, {"network.onnx": bytes(100_000)})
    except OutputError as error:
        print(error)
"""


@pytest.mark.parametrize("limit", [0, 100, 1000, 50_000])
def test_a_disk_that_is_really_full(path: Path, limit: int) -> None:
    before = path.read_bytes()
    command = [sys.executable, "-c", FULL, str(path), str(limit)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"cannot write {str(path)!r}: it grew larger than a file may be here\n"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
