"""A folder of good files for the places of a command that are not attacked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from kit.attacks.pictures_and_arrays import png
from kit.attacks.plans import BATCH, SHAPE
from kit.tiny_networks import multiplication, write_toy_plan
from onnx import helper
from PIL import Image


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files for the other places of a command."""
    folder = tmp_path_factory.mktemp("room")
    write_toy_plan(folder / "good.plan", multiplication(0.5, shape=SHAPE), shape=SHAPE)
    (folder / "good.png").write_bytes(png())
    Image.new("L", SHAPE[1:], 255).save(folder / "white.png")
    np.savez(folder / "good.npz", images=np.arange(8 * 16, dtype=np.uint8).reshape(8, 4, 4))
    torch = pytest.importorskip("torch")
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
