"""A small convolutional classifier: its features measure samples, its answers check their classes.

Run as `python -m pysdk.training.classifier --data fashion-mnist --out models/fashion-mnist-classifier`.
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from pysdk.datasets.dataset import Dataset
from pysdk.datasets.loading import load_dataset
from pysdk.errors import DataError, OptionError
from pysdk.files.atomic import atomic_file
from pysdk.training.checkpoint import WEIGHTS, load_weights, read_tensors

FEATURES = 64
_GRID = 3
"""Sides of the grid that the last feature map is averaged to, whatever the size of the images."""


class Classifier(nn.Module):
    """Three 3x3 convolutions with batch normalisation and a layer of 64 features.

    Args:
        channels: C of the images.
        num_classes: K.

    Args of forward:
        x: float32 (B, C, H, W) in [-1, 1], H and W 12 or more.

    Returns:
        Features float32 (B, 64), before their ReLU, and logits float32 (B, K).
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        widths = (channels, 24, 48, 96)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())
            for c_in, c_out in pairwise(widths)
        )
        self.features = nn.Linear(widths[-1] * _GRID**2, FEATURES)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(FEATURES, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second, third = self.blocks
        h = F.max_pool2d(first(x), 2)
        h = F.max_pool2d(second(h), 2)
        h = F.adaptive_avg_pool2d(third(h), _GRID).flatten(1)
        features = self.features(h)
        return features, self.head(self.dropout(F.relu(features)))


def scaled(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, C, H, W) -> float32 in [-1, 1]."""
    return torch.from_numpy(images.astype(np.float32)) / 127.5 - 1


@torch.inference_mode()
def classify(
    model: Classifier, images: NDArray[np.uint8], batch_size: int = 500
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the network sees in images, in batches.

    Args:
        model: in evaluation mode.
        images: uint8 (N, C, H, W).
        batch_size: images at a time.

    Returns:
        Features float32 (N, 64) and the most likely classes int64 (N,).

    Raises:
        DataError: the images have another number of channels than the network takes.
    """
    channels = model.blocks[0][0].in_channels  # type: ignore[index]
    if images.ndim != 4 or images.shape[1] != channels:
        raise DataError(f"Images have shape {images.shape}; this classifier takes (N, {channels}, H, W).")
    features = np.empty((len(images), FEATURES), np.float32)
    classes = np.empty(len(images), np.int64)
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        batch_features, logits = model(scaled(images[rows]))
        features[rows], classes[rows] = batch_features.numpy(), logits.argmax(1).numpy()
    return features, classes


def train(
    data: Dataset,
    epochs: int = 6,
    *,
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    seed: int = 0,
    progress: bool = True,
) -> Classifier:
    """A classifier trained with AdamW, a one-cycle learning rate and mirrored images.

    Args:
        data: images and labels.
        epochs: passes over the data.
        batch_size: images per step; an incomplete batch at the end of an epoch is left out.
        learning_rate: its peak, after a third of the steps.
        seed: for weights, order, mirroring and dropout.
        progress: whether to show a progress bar.

    Returns:
        The network in evaluation mode.

    Raises:
        OptionError: `epochs` is below 1 or `batch_size` outside [2, N].
        DataError: the data have no labels.
    """
    if epochs < 1:
        raise OptionError(f"epochs is {epochs}; expected at least 1.")
    if not 2 <= batch_size <= len(data):
        raise OptionError(f"batch_size is {batch_size}; expected 2 or more, and at most the {len(data)} images.")
    if data.labels is None or data.num_classes is None:
        raise DataError("A classifier needs labels and these images have none; sort them into one folder per class.")
    torch.manual_seed(seed)
    model = Classifier(data.images.shape[1], data.num_classes)
    labels = torch.from_numpy(data.labels)
    per_epoch = len(data) // batch_size
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, epochs * per_epoch)
    bar = tqdm(total=epochs * per_epoch, unit="step", disable=not progress, dynamic_ncols=True)
    with bar:
        for _ in range(epochs):
            for chosen in torch.randperm(len(data))[: per_epoch * batch_size].reshape(-1, batch_size):
                images = scaled(data.images[chosen.numpy()])
                mirrored = torch.rand(batch_size) < 0.5
                images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
                loss = F.cross_entropy(model(images)[1], labels[chosen], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rate.step()
                bar.update()
    return model.eval()


def save(model: Classifier, folder: Path) -> None:
    """Writes `model.safetensors`, in full or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / WEIGHTS) as file:
        file.write(save_tensors({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def load(folder: Path) -> Classifier:
    """A trained classifier on the CPU, in evaluation mode; its weights say for how many channels and classes.

    Raises:
        CheckpointError: `model.safetensors` is missing, damaged or that of another network.
    """
    weights = read_tensors(folder / WEIGHTS)
    first, last = weights.get("blocks.0.0.weight"), weights.get("head.bias")
    channels = first.shape[1] if first is not None and first.ndim == 4 else 1
    model = Classifier(channels, last.shape[0] if last is not None and last.ndim == 1 else 1)
    load_weights(model, weights, str(folder / WEIGHTS))
    return model.eval()


@click.command()
@click.option("--data", "source", required=True, help="Data set: fashion-mnist, cifar10:FOLDER, a folder, an .npz.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that gets model.safetensors.")
@click.option("--epochs", type=click.IntRange(1), default=6, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(source: str, out: Path, epochs: int, seed: int) -> None:
    """Train the classifier that `pysdk evaluate` measures with once pysdk.export.feature_network has exported it."""
    started = time.monotonic()
    model = train(load_dataset(source), epochs, seed=seed)
    seconds = time.monotonic() - started
    save(model, out)
    test = load_dataset(source, "test")
    accuracy = float((classify(model, test.images)[1] == test.labels).mean())
    click.echo(f"Accuracy on the test split {accuracy:.2%}, trained in {seconds:.0f} s, written to {out}")


if __name__ == "__main__":
    main()
