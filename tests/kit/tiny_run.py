"""A short training run that uses everything: classes, null label, dropout, attention, learned variance, mirroring.

`python -m kit.tiny_run FOLDER STEPS` runs it in a process of its own, which tests then kill.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pysdk.datasets.dataset import Dataset
from pysdk.training.checkpoint import ModelConfig
from pysdk.training.fit import FitConfig, Trainer, fit
from pysdk.training.unet import UNetConfig

UNET = UNetConfig(
    (1, 8, 8), 8, (1, 2), (0, 1), (1,), 8, 4, dropout=0.2, num_classes=3, null_label=True, learn_variance=True
)
MODEL = ModelConfig("tiny", UNET, "cosine", {"timesteps": 50})
CONFIG = FitConfig(
    steps=15, batch_size=4, learning_rate=2e-3, warmup=10, loss="hybrid", flip=True, save_every=3, seed=5
)


def dataset(count: int = 42) -> Dataset:
    """Stripes that are dark, gray or bright: one class each."""
    labels = np.arange(count) % 3
    stripes = np.tile(np.arange(8, dtype=np.uint8) * 4, (count, 1, 8, 1))
    return Dataset(stripes + (labels * 100).astype(np.uint8)[:, None, None, None], labels.astype(np.int64))


def run(folder: Path, **changes: object) -> Trainer:
    """Trains, or resumes, with CONFIG changed in some fields."""
    return fit(dataset(), MODEL, replace(CONFIG, **changes), folder, progress=False)  # type: ignore[arg-type]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), steps=int(sys.argv[2]))
