"""Checkpoints come back as they were, and nothing else is taken for one."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pysdk.errors import CheckpointError
from pysdk.training.checkpoint import CONFIG, WEIGHTS, ModelConfig, load_model, save_model
from pysdk.training.unet import UNet, UNetConfig

UNET = UNetConfig((1, 8, 8), 8, (1, 2), (0, 1), (1,), 8, 4, num_classes=3, null_label=True, resample="pool")
MODEL = ModelConfig("tiny", UNET, "cosine", {"timesteps": 100}, "v_prediction", ("a", "b", "c"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", MODEL, UNet(UNET).state_dict())
    return tmp_path / "model"


def test_round_trip(tmp_path: Path) -> None:
    network = UNet(UNET).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    save_model(tmp_path / "deep" / "folder", MODEL, network.state_dict())
    config, loaded = load_model(tmp_path / "deep" / "folder")
    assert config == MODEL
    assert not loaded.training
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert len(config.make_schedule()) == 100
    assert sorted(path.name for path in (tmp_path / "deep" / "folder").iterdir()) == [CONFIG, WEIGHTS]


def test_defaults_round_trip(tmp_path: Path) -> None:
    config = ModelConfig("plain", UNetConfig((1, 8, 8), 8, (1,), 1, (), 8, 4))
    save_model(tmp_path, config, UNet(config.unet).state_dict())
    assert load_model(tmp_path)[0] == config
    assert len(config.make_schedule()) == 1000


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"There is no .*{name}"):
        load_model(folder)


def change_weights(folder: Path, kind: str) -> None:
    weights = UNet(UNET).state_dict()
    if kind == "missing":
        del weights["stem.weight"]
    elif kind == "extra":
        weights["more"] = torch.zeros(1)
    else:
        weights["stem.weight"] = weights["stem.weight"][..., :2].contiguous()
    save_file(weights, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", r"1 tensors are missing \['stem\.weight'\], 0 are unknown"),
        ("extra", r"0 tensors are missing \[\], 1 are unknown \['more'\]"),
        ("shape", r"stem\.weight has shape \(8, 1, 3, 2\), the network needs \(8, 1, 3, 3\)"),
    ],
)
def test_weights_of_another_network(folder: Path, kind: str, words: str) -> None:
    change_weights(folder, kind)
    with pytest.raises(CheckpointError, match=words):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights(folder: Path, keep: int) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_model(folder)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_pickle_is_never_executed(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps(_Bomb(tmp_path / "executed")))
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_model(folder)
    torch.save(_Bomb(tmp_path / "executed"), folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_model(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not readable JSON"),
        ("[]", "holds a list, expected a JSON object"),
        ("{}", "does not describe a model"),
        ('{"name": "x", "unet": []}', "does not describe a model"),
        ('{"name": "x", "unet": {}, "epochs": 3}', "expected the fields"),
        ('{"name": "x", "unet": {"norm_groups": 7}}', "norm_groups"),
    ],
)
def test_damaged_config(folder: Path, text: str, words: str) -> None:
    (folder / CONFIG).write_text(text)
    with pytest.raises(CheckpointError, match=words):
        load_model(folder)


def test_config_of_another_network(folder: Path) -> None:
    data = json.loads((folder / CONFIG).read_text())
    data["unet"]["learn_variance"] = True
    (folder / CONFIG).write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"head\.2\.\w+ has shape"):
        load_model(folder)
