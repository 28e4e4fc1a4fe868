"""Nothing but a plan is read as one."""

import errno
import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.plan_files import BUILD_AGAIN, MEMBERS, contents, edited, pack, refusal

from pysdk import _native
from pysdk.errors import OptionTypeError, PlanNotFoundError
from pysdk.plan.container import directory, lay_out, local_header
from pysdk.plan.manifest import (
    encode_manifest,
)
from pysdk.plan.reader import Plan


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


EDM = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, "sigma_data": 0.5}
OF_SIGMA = {"schedule__betas": None, "schedule__edm": EDM, "model__prediction_type": "edm"}


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
        ({"schedule__betas": None}, "schedule has betas and edm, or neither"),
        ({"schedule__edm": EDM}, "schedule has betas and edm, or neither"),
        ({"schedule__betas": None, "schedule__edm": EDM}, "prediction_type is epsilon, which a network of sigma"),
        ({"model__prediction_type": "edm"}, "prediction_type is edm, which a network of timesteps does not have"),
        ({**OF_SIGMA, "schedule__edm": {**EDM, "sigma_data": None}}, "schedule.edm.sigma_data is missing"),
        ({**OF_SIGMA, "schedule__edm": {**EDM, "sigma_min": 80.0}}, "schedule.edm.sigma_min is not below"),
        ({**OF_SIGMA, "schedule__edm": {**EDM, "rho": 0}}, "field schedule.edm.rho"),
        ({**OF_SIGMA, "schedule__edm": {**EDM, "sigma_max": 1e300}}, "field schedule.edm.sigma_max"),
        ({**OF_SIGMA, "model__whole_timesteps": True}, "a network of sigma has no"),
        ({"defaults__options": {"a": [1]}}, "field defaults.options"),
        ({"defaults__options": {"a": 2**60}}, "field defaults.options"),
        ({"defaults__clip__ratio": 0}, "field defaults.clip.ratio"),
        ({"engines__0__member": "cpu2"}, "engines[0].member is 'cpu2'"),
        ({"engines__0__member": "../x"}, "field engines[0].member"),
        ({"engines__0__batch_size": 0}, "field engines[0].batch_size"),
        ({"engines__0__batches": [1, 8]}, "engines[0].batch_size is 16, its batches are 1 to 8"),
        ({"engines__0__batches": [0, 16]}, "field engines[0].batches"),
        ({"engines__0__batches": [16]}, "field engines[0].batches"),
        ({"engines__0__names": {"x": "a\nb"}}, "field engines[0].names"),
        ({"members": {}}, "engines[0].member is 'network.onnx'"),
        ({"members": {}, "engines": []}, "has no network.onnx, and there is no engine either"),
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


def test_a_plan_of_a_newer_numerics_version(path: Path) -> None:
    newer = _native.NUMERICS_VERSION + 1
    edited(path, numerics_version=newer)
    message = refusal(path)
    assert f"has numerics version {newer}, this pysdk computes version {newer - 1}" in message
    assert "update pysdk" in message
    assert "\n" not in message
