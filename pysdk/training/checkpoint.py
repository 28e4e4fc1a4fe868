"""Checkpoints: a folder with `model.safetensors` (the averaged weights) and `model.json` (how to build and read it)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pysdk.diffusion.schedule import Schedule, make_schedule
from pysdk.errors import CheckpointError, PysdkError
from pysdk.files.atomic import atomic_file, atomic_folder, make_folder
from pysdk.files.regular_file import read_file, read_object
from pysdk.machine.memory import given
from pysdk.training.unet import UNet, UNetConfig

WEIGHTS, CONFIG = "model.safetensors", "model.json"
_MAX_JSON = 1 << 26
"""The most bytes in a JSON file; a state has the history of its losses."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a trained denoiser except its weights.

    Attributes:
        name: what to call it.
        unet: how the network is built.
        schedule: name of the schedule it was trained on, see `pysdk.diffusion.schedule.SCHEDULES`.
        schedule_options: keyword arguments of that schedule.
        prediction_type: "epsilon", "sample" or "v_prediction".
        class_names: one per class, or None.
    """

    name: str
    unet: UNetConfig
    schedule: str = "linear"
    schedule_options: dict[str, int | float] | None = None
    prediction_type: str = "epsilon"
    class_names: tuple[str, ...] | None = None

    def make_schedule(self) -> Schedule:
        """The schedule as an object."""
        return make_schedule(self.schedule, **(self.schedule_options or {}))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelConfig:
        """The inverse of `dataclasses.asdict`; unknown fields are refused."""
        known = [field.name for field in fields(cls)]
        try:
            unknown = sorted(data.keys() - known)
            unknown += sorted(data["unet"].keys() - {field.name for field in fields(UNetConfig)})
            if unknown:
                raise CheckpointError(f"there is a field {unknown[0][:80]!r}")
            return msgspec.convert(data, cls)  # checks types as well
        except (TypeError, KeyError, AttributeError, msgspec.ValidationError, PysdkError) as error:
            raise CheckpointError(
                f"{CONFIG} does not describe a model ({error}); expected the fields {known}."
            ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; nothing is ever unpickled.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    data = read_file(_there(path), given() // 2, CheckpointError)
    try:
        return load_tensors(data)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def _there(path: Path) -> Path:
    if not path.exists():
        raise CheckpointError(f"There is no {path}; expected a checkpoint with {WEIGHTS} and {CONFIG}.")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, with the errors of a checkpoint."""
    return read_object(_there(path), CheckpointError, _MAX_JSON)


def save_model(folder: Path, config: ModelConfig, weights: dict[str, Tensor]) -> None:
    """Writes the two files of a finished model, each in full or not at all."""
    make_folder(folder)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with atomic_file(folder / WEIGHTS) as file:
        file.write(save_tensors(contiguous))
    with atomic_file(folder / CONFIG) as file:
        file.write(json.dumps(asdict(config), indent=2).encode() + b"\n")


def load_model(folder: Path) -> tuple[ModelConfig, UNet]:
    """A trained network on the CPU, in evaluation mode, and its description.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights are not those of the described network.
    """
    config = ModelConfig.from_json(read_json(folder / CONFIG))
    weights = read_tensors(folder / WEIGHTS)
    with torch.device("meta"):  # no memory is spent before the weights are known to fit
        model = UNet(config.unet)
    check_weights(model, weights, str(folder / WEIGHTS))
    model.to_empty(device="cpu").load_state_dict(weights)
    return config, model.eval()


def load_weights(model: torch.nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copies weights into a model after naming what does not fit."""
    check_weights(model, weights, source)
    model.load_state_dict(weights)


def check_weights(model: torch.nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """CheckpointError that names what does not fit a model, which may be without memory (device "meta")."""
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or extra:
        raise CheckpointError(
            f"{source} belongs to another network: {len(missing)} tensors are missing {missing[:3]}, "
            f"{len(extra)} are unknown {extra[:3]}."
        )
    for name, tensor in expected.items():
        if tensor.shape != weights[name].shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(weights[name].shape)}, the network needs {tuple(tensor.shape)}."
            )


def save_state(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Writes a training state as one folder that appears in full or not at all."""
    make_folder(folder.parent)
    with atomic_folder(folder) as part:
        (part / "state.safetensors").write_bytes(
            save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        )
        (part / "state.json").write_text(json.dumps(state))
