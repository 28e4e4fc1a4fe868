"""Every command against every kind of hostile file it reads: exit code 1, one line on stderr, little time and memory.

A row of a table is a file, a column a command with a place for it. Most run in this process; some as users run them.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from kit.hostile_files import HEADERS, IGNORED, PICTURES, npy, png, special
from kit.onnx_bytes.forged import HIDDEN, model, number, outside, piece
from kit.onnx_bytes.forged import graph as forged_graph
from kit.processes import IMPORTS
from kit.tiny_networks import multiplication, toy_engine, write_toy_plan
from onnx import TensorProto, helper
from PIL import Image

from pysdk.cli import commands
from pysdk.engines.native import Head, TensorInfo
from pysdk.plan.container import directory, lay_out, local_header
from pysdk.plan.reader import Plan
from pysdk.plan.writer import write_plan

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.timeout(20)

SHAPE = (1, 4, 4)
BATCH = ["batch", *SHAPE]
SECONDS = 5.0
"""Of processor time, for one command on a slow machine; each takes some hundredths of a second."""
MEMORY = 300 << 20
"""More than a command had before."""
SPECIAL = ("pipe", "socket", "device", "folder")

Make = Callable[[Path], object]


def network(*nodes: Any) -> bytes:
    """From x and t to output."""
    ports = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", BATCH), ("t", [1]))]
    graph = helper.make_graph(nodes, "g", ports, [helper.make_tensor_value_info("output", 1, BATCH)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


def constant(name: str, kind: int, *values: int) -> Any:
    shape = [len(values)] if len(values) > 1 else []
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, kind, shape, list(values)))


def loop() -> bytes:
    """2^63 times -x."""
    values = [("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("v", 1, None)]
    inputs = [helper.make_tensor_value_info(*value) for value in values]
    outputs = [helper.make_tensor_value_info(*value) for value in (("on", TensorProto.BOOL, []), ("w", 1, None))]
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["v"], ["w"])]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    repeat = helper.make_node("Loop", ["n", "yes", "x"], ["output"], body=body)
    return network(constant("n", TensorProto.INT64, 2**63 - 1), constant("yes", TensorProto.BOOL, 1), repeat)


def large() -> bytes:
    """Zeros of 1.2 GB, of which the mean is taken."""
    size = constant("size", TensorProto.INT64, 30_000, 10_000)
    nodes = [
        helper.make_node("Mul", ["size", "one"], ["sizes"]),
        helper.make_node("ConstantOfShape", ["sizes"], ["zeros"]),
        helper.make_node("ReduceMean", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["x", "zero"], ["output"]),
    ]
    return network(size, constant("one", TensorProto.INT64, 1), *nodes)


def attention() -> bytes:
    """A native program: attention over 512 x 512 pixels."""
    place = {"op": "attention", "out": 1, "heads": 1, "head_channels": 3, "scale": 1.0}
    head = Head(
        version=1,
        tensors=tuple(TensorInfo(3, 512, 512, shared=False) for _ in range(2)),
        weights=(),
        ops=({"op": "input", "out": 0}, place | dict.fromkeys("qkv", (0, 0, 3)), {"op": "output", "x": 1}),
    )
    return bytes(msgspec.json.encode(head))


def native_plan(path: Path) -> None:
    write_toy_plan(path, multiplication(0.5), shape=(3, 512, 512), out_channels=3)
    with Plan.open(path) as plan:
        engines = (toy_engine(kind="native", member="native.json"),)
        manifest = msgspec.structs.replace(plan.manifest, engines=engines)
        members = {"network.onnx": bytes(plan.member("network.onnx")), "native.json": attention()}
    write_plan(path, manifest, members)


def manifest(data: bytes) -> Make:
    """A plan with right checksums around any manifest."""

    def make(path: Path) -> None:
        entries = lay_out([("manifest.json", len(data), zlib.crc32(data))])
        path.write_bytes(local_header(entries[0]) + data + directory(entries))

    return make


def plan_of(onnx: bytes) -> Make:
    return lambda path: write_toy_plan(path, onnx, shape=SHAPE)


def damaged(path: Path) -> None:
    write_toy_plan(path, multiplication(0.5, shape=SHAPE), shape=SHAPE)
    data = path.read_bytes()
    at = data.index(b"multiplication")
    path.write_bytes(data[:at] + b"M" + data[at + 1 :])


def cut(path: Path) -> None:
    write_toy_plan(path, multiplication(0.5, shape=SHAPE), shape=SHAPE)
    path.write_bytes(path.read_bytes()[:-30])


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def written(data: bytes) -> Make:
    return lambda path: path.write_bytes(data)


def of_kind(kind: str) -> Make:
    return lambda path: special(path.parent, kind).rename(path)


KINDS: dict[str, Make] = {kind: of_kind(kind) for kind in SPECIAL}

PLANS: dict[str, Make] = {
    **KINDS,
    "missing": lambda path: None,
    "empty": written(b""),
    "text": written(b"hello" * 1000),
    "pointer": written(b"version https://git-lfs.github.com/spec/v1\n"),
    "sparse": sparse,
    "cut": cut,
    "brackets": manifest(b"[" * 100_000),
    "objects": manifest(b'{"model":' * 100_000),
}
"""What no command opens."""

outside_graph = forged_graph(piece(5, outside("/etc/passwd"), tag=HIDDEN[5]))
NETWORKS: dict[str, Make] = {
    "damaged": damaged,
    "external data": plan_of(model(forged_graph(piece(5, outside("/etc/passwd"))))),
    "hidden external data": plan_of(model(outside_graph)),
    "brackets": plan_of(piece(7, piece(1, piece(5, b"\x0a" * 5000)))),
    "no network": plan_of(number(1, 8)),
    "loop": plan_of(loop()),
    "large": plan_of(large()),
    "attention": native_plan,
}
"""What `info` describes and no command runs."""
WORDS = {
    "damaged": "SHA-256",
    "external data": "/etc/passwd",
    "hidden external data": "field 1073741829",
    "brackets": "out of order",
    "no network": "no graph",
    "loop": "'Loop'",
    "large": "ONNX Runtime needs 1,200,000,000 bytes more",
    "attention": "2.2e+12 multiplications",
}
"""That tell it was refused for what it is."""

WITH_PLAN = {
    "info": ["info", "PLAN"],
    "sample": ["sample", "PLAN", "-n", "1", "-o", "new.png"],
    "edit": ["edit", "PLAN", "good.png", "-o", "new.png"],
    "inpaint": ["inpaint", "PLAN", "good.png", "--mask", "white.png", "--jump-n-sample", "1", "-o", "new.png"],
    "interpolate": ["interpolate", "PLAN", "good.png", "good.png", "--steps", "5", "-o", "new.png"],
    "evaluate": ["evaluate", "PLAN", "--reference", "good.npz", "--features", "features.onnx", "-n", "8"],
    "likelihood": ["likelihood", "PLAN", "--data", "good.npz", "-n", "2"],
    "compression": ["compression", "PLAN", "--data", "good.npz", "-n", "2", "-o", "new.csv"],
    "build": ["build", "PLAN", "-o", "new.plan"],
    "add-classifier": ["add-classifier", "PLAN", "good.pt"],
}
DRAWING = [name for name in WITH_PLAN if name not in ("info", "build", "add-classifier")]
FEW = ["--features", "features.onnx", "--metrics", "frechet"]
WITH_PICTURE = {
    "edit": ["edit", "good.plan", "good.png", "FILE", "-o", "new.png"],
    "inpaint": ["inpaint", "good.plan", "FILE", "--mask", "white.png", "--jump-n-sample", "1", "-o", "new.png"],
    "inpaint --mask": ["inpaint", "good.plan", "good.png", "--mask", "FILE", "-o", "new.png"],
    "interpolate": ["interpolate", "good.plan", "good.png", "FILE", "--steps", "5", "-o", "new.png"],
}
WITH_DATA = {
    "train": ["train", "--data", "DATA", "--out", "run"],
    "evaluate": ["evaluate", "DATA", "--reference", "good.npz", *FEW],
    "evaluate --reference": ["evaluate", "good.npz", "--reference", "DATA", *FEW],
    "likelihood": ["likelihood", "good.plan", "--data", "DATA", "-n", "1"],
    "compression": ["compression", "good.plan", "--data", "DATA", "-n", "1", "-o", "new.csv"],
}
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


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files for the other places of a command."""
    folder = tmp_path_factory.mktemp("room")
    write_toy_plan(folder / "good.plan", multiplication(0.5, shape=SHAPE), shape=SHAPE)
    (folder / "good.png").write_bytes(png())
    Image.new("L", SHAPE[1:], 255).save(folder / "white.png")
    np.savez(folder / "good.npz", images=np.arange(8 * 16, dtype=np.uint8).reshape(8, 4, 4))
    torch.save({"a": torch.zeros(1)}, folder / "good.pt")
    ports = (
        [helper.make_tensor_value_info("x", 1, BATCH)],
        [helper.make_tensor_value_info("features", 1, ["batch", 16])],
    )
    graph = helper.make_graph([helper.make_node("Flatten", ["x"], ["features"])], "g", *ports)
    features = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    (folder / "features.onnx").write_bytes(features)
    return folder


@pytest.fixture
def here(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, with links to the good files, as the working one."""
    for path in room.iterdir():
        os.link(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def memory(name: str) -> int:
    """VmRSS, or VmHWM, the most there was since `forget`; bytes, 0 where the system does not say."""
    if not Path("/proc/self/clear_refs").exists():
        return 0
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


def forget() -> int:
    """The memory that there is now; the most there was begins here."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr of `pysdk`, which has to be done in bounded time and memory."""
    monkeypatch.setattr(sys, "argv", ["pysdk", *arguments])
    before, start = forget(), time.process_time()
    code = 0
    try:
        commands.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    taken, seconds = memory("VmHWM") - before, time.process_time() - start
    assert seconds < SECONDS
    assert taken < MEMORY
    return code, capfd.readouterr().err


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused."""
    code, err = run(arguments, monkeypatch, capfd)
    assert_one_line(code, err)
    assert not list(Path().rglob("new*"))
    return err


def assert_one_line(code: int, err: str) -> None:
    assert err.startswith("error: "), err[-2000:]
    assert err.count("\n") == 1, err[-2000:]
    assert err.endswith("\n")
    assert len(err) < 1200
    assert code == 1


@pytest.mark.parametrize("attack", PLANS)
@pytest.mark.parametrize("command", WITH_PLAN)
def test_a_file_that_is_no_plan(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    PLANS[attack](here / "a.plan")
    arguments = ["a.plan" if word == "PLAN" else word for word in WITH_PLAN[command]]
    assert "a.plan" in refused(arguments, monkeypatch, capfd)


@pytest.mark.parametrize("attack", NETWORKS)
@pytest.mark.parametrize("command", DRAWING)
def test_a_network_in_a_plan(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    NETWORKS[attack](here / "a.plan")
    arguments = ["a.plan" if word == "PLAN" else word for word in WITH_PLAN[command]]
    assert WORDS[attack] in refused([*arguments, "--max-memory", "200MB"], monkeypatch, capfd)


@pytest.mark.parametrize("attack", NETWORKS)
def test_a_network_that_is_described(
    here: Path, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    NETWORKS[attack](here / "a.plan")
    assert run(["info", "a.plan"], monkeypatch, capfd) == (0, "")


@pytest.mark.parametrize("attack", ["damaged", "external data", "hidden external data", "brackets", "no network"])
def test_a_network_that_is_not_built_again(
    here: Path, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    NETWORKS[attack](here / "a.plan")
    assert WORDS[attack] in refused(["build", "a.plan", "-o", "new.plan"], monkeypatch, capfd)


@pytest.mark.parametrize("attack", [*PICTURES, *KINDS, "missing"])
@pytest.mark.parametrize("command", WITH_PICTURE)
def test_a_picture(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    {**PLANS, **{name: written(data) for name, data in PICTURES.items()}}[attack](here / "a.png")
    arguments = ["a.png" if word == "FILE" else word for word in WITH_PICTURE[command]]
    assert "a.png" in refused(arguments, monkeypatch, capfd)


@pytest.mark.parametrize("attack", IGNORED)
@pytest.mark.parametrize("command", WITH_PICTURE)
def test_a_bomb_that_no_picture_needs(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "a.png").write_bytes(IGNORED[attack])
    arguments = ["a.png" if word == "FILE" else word for word in WITH_PICTURE[command]]
    code, err = run(arguments, monkeypatch, capfd)
    if command == "inpaint --mask":  # it is black, and nothing is to be drawn
        assert_one_line(code, err)
    else:
        assert (code, err) == (0, "")


@pytest.mark.parametrize("attack", [*PICTURES, "pipe", "socket", "device"])
@pytest.mark.parametrize("command", WITH_DATA)
def test_a_folder_of_pictures(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "pictures").mkdir()
    {**KINDS, **{name: written(data) for name, data in PICTURES.items()}}[attack](here / "pictures" / "a.png")
    arguments = ["pictures" if word == "DATA" else word for word in WITH_DATA[command]]
    refused(arguments, monkeypatch, capfd)


@pytest.mark.parametrize("attack", [*HEADERS, *PLANS])
@pytest.mark.parametrize("command", WITH_DATA)
def test_an_npz(
    here: Path, command: str, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if attack in HEADERS:
        with zipfile.ZipFile("a.npz", "w") as file:
            file.writestr("images.npy", npy(HEADERS[attack]))
    else:
        PLANS[attack](here / "a.npz")
    arguments = ["a.npz" if word == "DATA" else word for word in WITH_DATA[command]]
    refused(arguments, monkeypatch, capfd)


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


@pytest.mark.parametrize("attack", [*KINDS, "sparse", "text", "loop"])
def test_features(here: Path, attack: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    {**PLANS, "loop": written(loop())}[attack](here / "a.onnx")
    refused(["evaluate", "good.npz", "--reference", "good.npz", "--features", "a.onnx"], monkeypatch, capfd)


@pytest.mark.parametrize(
    ("name", "make", "arguments"),
    [
        ("a.plan", KINDS["pipe"], ["sample", "a.plan"]),
        ("a.png", written(PICTURES["wide"]), ["edit", "good.plan", "a.png"]),
        ("a.plan", NETWORKS["loop"], ["sample", "a.plan"]),
    ],
)
def test_as_users_run_it(here: Path, name: str, make: Make, arguments: list[str]) -> None:
    make(here / name)
    program = [sys.executable, "-c", "from pysdk.cli.__main__ import main; main()", *arguments]
    environment = os.environ | IMPORTS
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=15, env=environment)
    assert_one_line(done.returncode, done.stderr)
