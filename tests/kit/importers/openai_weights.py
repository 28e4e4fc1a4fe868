"""The golden networks of tests/data/openai; weights are the same on every machine and in every numpy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kit.places import DATA
from pysdk.noise import normal

OPENAI = DATA / "openai"
SEED = 2021
IMAGES = np.array([3, 8], dtype=np.uint64)
LABELS = np.array([1, 640])


def draw_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Tensor k is image k of a gallery: fan-in scaled weights, norms around 1, small biases."""
    weights = {}
    for index, (name, shape) in enumerate(shapes.items()):
        z = torch.from_numpy(normal(7, [index], 0, shape)[0])
        if len(shape) > 1:
            weights[name] = z / math.sqrt(math.prod(shape[1:]) if "label_emb" not in name else 1)
        else:
            weights[name] = 0.1 * z + (1.0 if name.endswith("weight") else 0.0)
    return weights


class Golden:
    """One file of tests/data/openai, its weights saved as upstream saves them."""

    def __init__(self, name: str, folder: Path) -> None:
        with np.load(OPENAI / f"{name}.npz") as file:
            self.times, self.calls = file["times"], file["calls"]
            self.end = file.get("end")
            self.flags: dict[str, str] = json.loads(str(file["flags"]))
            self.weights = draw_weights(json.loads(str(file["shapes"])))
        self.path = folder / f"{name}.pt"
        torch.save(self.weights, self.path)

    def save(self, weights: Any) -> str:
        torch.save(weights, self.path)
        return str(self.path)
