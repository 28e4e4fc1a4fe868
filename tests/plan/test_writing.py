"""A plan is written in full and readable, or not at all."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kit.plan_files import MANIFEST, MEMBERS
from kit.processes import IMPORTS

from pysdk.errors import OptionError, OptionTypeError, OutputError
from pysdk.plan import writer
from pysdk.plan.manifest import (
    DefaultsInfo,
    Manifest,
    ScheduleInfo,
    encode_manifest,
)
from pysdk.plan.writer import write_plan


@pytest.mark.parametrize(
    ("manifest", "members", "expected"),
    [
        (MANIFEST, {"cpu.weights": b"1"}, "engines[0].member is 'network.onnx'"),
        (msgspec.structs.replace(MANIFEST, engines=()), {"cpu.weights": b"1"}, "has no network.onnx"),
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
    monkeypatch.setattr(writer, "MAX_MEMBER_BYTES", 10)
    with pytest.raises(OptionError, match="smaller than 4 GiB, the members given have 109 bytes"):
        write_plan(path, MANIFEST, MEMBERS)


def test_a_source_that_changes_meanwhile(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, before = tmp_path / "source", path.read_bytes()
    source.write_bytes(b"one")

    def meddle(manifest: Manifest) -> bytes:
        source.write_bytes(b"two")
        return encode_manifest(manifest)

    monkeypatch.setattr(writer, "encode_manifest", meddle)
    with pytest.raises(OutputError, match=r"'network\.onnx' changed while it was copied"):
        write_plan(path, MANIFEST, {"network.onnx": source})
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path, source]


FULL = """
import resource, signal, sys
from pysdk.errors import OutputError
from pysdk.plan.reader import Plan
from pysdk.plan.writer import write_plan
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
    environment = os.environ | IMPORTS
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"cannot write {str(path)!r}: it grew larger than a file may be here\n"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
