"""Every command that takes a checkpoint or a state, against hostile files: exit code 1, one line on stderr."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
from kit.attacks.command import refused
from kit.attacks.plans import KINDS, Make, sparse, written

pytest.importorskip("torch")

pytestmark = pytest.mark.timeout(20)

FEW = ["--features", "features.onnx", "--metrics", "frechet"]
TINY = [
    "--model-channels",
    "8",
    "--channel-mult",
    "1",
    "--attention-levels",
    "",
    "--norm-groups",
    "4",
    "--head-channels",
    "8",
    "--steps",
    "2",
]
OBJECTS: dict[str, Make] = {
    **{kind: make for kind, make in KINDS.items() if kind != "folder"},
    "sparse": sparse,
    "brackets": written(b"[" * 100_000),
    "objects": written(b'{"a":' * 100_000),
    "digits": written(b"1" * 10_000),
    "list": written(b"[]"),
    "no text": written(b"\xff\xfe"),
    "a billion blocks": written(
        json.dumps({"name": "a", "unet": {"image_shape": [1, 4, 4], "num_res_blocks": 10**9}}).encode()
    ),
}
WITH_OBJECT = {
    "build": (["build", "checkpoint", "-o", "new.plan"], "checkpoint/model.json"),
    "build diffusers": (["build", "pipeline", "-o", "new.plan"], "pipeline/model_index.json"),
    "train": (["train", "--data", "good.npz", "--out", "run", *TINY], "run/states/step-00000001/state.json"),
    "evaluate --work": (
        ["evaluate", "good.plan", "--reference", "good.npz", *FEW, "-n", "8", "--work", "work"],
        "work/settings.json",
    ),
}
BYTEARRAY = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (2**44).to_bytes(6, "little") + b"\x85R."


def archive(compression: int) -> Make:
    """A file of torch.save whose pickle makes something else than tensors."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as file:
            file.writestr("archive/data.pkl", BYTEARRAY)
            file.writestr("archive/data/0", bytes(50 << 20) if compression else b"")

    return make


CHECKPOINTS: dict[str, Make] = {
    **{kind: make for kind, make in KINDS.items() if kind != "folder"},
    "bytearray": written(BYTEARRAY),
    "code": written(pickle.dumps(print, protocol=2)),
    "archive": archive(zipfile.ZIP_STORED),
    "compressed archive": archive(zipfile.ZIP_DEFLATED),
    "empty": written(b""),
    "text": written(b"hello"),
}
WITH_CHECKPOINT = {
    "build": ["build", "a.pt", "-o", "new.plan", "--repository", "improved-diffusion"],
    "add-classifier": ["add-classifier", "good.plan", "a.pt"],
}


@pytest.mark.parametrize("attack", OBJECTS)
@pytest.mark.parametrize("command", WITH_OBJECT)
def test_json(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, name = WITH_OBJECT[command]
    (here / name).parent.mkdir(parents=True)
    OBJECTS[attack](here / name)
    err = refused(arguments, monkeypatch, capfd)
    assert name.split("/")[0] in err or "model.json" in err


@pytest.mark.parametrize("attack", CHECKPOINTS)
@pytest.mark.parametrize("command", WITH_CHECKPOINT)
def test_a_checkpoint(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    CHECKPOINTS[attack](here / "a.pt")
    assert "a.pt" in refused(WITH_CHECKPOINT[command], monkeypatch, capfd)
