"""A small plan to write, and ways to read, pack and edit one."""

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from pysdk.errors import PlanError
from pysdk.plan.container import directory, lay_out, local_header
from pysdk.plan.manifest import (
    EngineInfo,
    Manifest,
    ModelInfo,
    ScheduleInfo,
    encode_manifest,
)
from pysdk.plan.reader import Plan

MODEL = ModelInfo(name="tiny", shape=(1, 28, 28), out_channels=1, num_classes=10, null_label=10, parameters=1234)
MANIFEST = Manifest(
    pysdk_version="0.1.0",
    model=MODEL,
    schedule=ScheduleInfo(name="linear", betas=(1e-4, 0.01, 0.02)),
    engines=(EngineInfo(kind="onnxruntime", member="network.onnx", precision="float32", batch_size=16),),
)
MEMBERS: dict[str, Any] = {"network.onnx": b"graph" * 9, "cpu.weights": bytes(range(64))}
BUILD_AGAIN = "build it again with `pysdk build`"


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
