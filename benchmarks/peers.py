"""The peers: stock diffusers pipelines and schedulers around the same weights, in torch and in ONNX Runtime.

The pipelines ask of their network only `unet(sample, timestep).sample`, a config, a dtype and a device. The wrappers
here give them that; since the stock pipelines are unconditional, a wrapper holds the labels of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from pysdk import Plan
from pysdk.plan.manifest import Manifest


class Unet(nn.Module):
    """What a diffusers pipeline takes for a network; without the channels of a learned variance, as DDIM wants it."""

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        channels, height, width = manifest.model.shape
        self.config = SimpleNamespace(sample_size=(height, width), in_channels=channels)
        self.channels = channels
        self.num_classes = manifest.model.num_classes

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> SimpleNamespace:
        """The network's output for one timestep of the whole batch; by default image i is of class i mod classes."""
        if class_labels is None and self.num_classes is not None:
            class_labels = torch.arange(len(sample)) % self.num_classes
        output = self.predict(sample, timestep.to(torch.float32).reshape(1), class_labels)
        return SimpleNamespace(sample=output[:, : self.channels])

    def predict(self, sample: Tensor, timestep: Tensor, labels: Tensor | None) -> Tensor:
        """All channels of the network: sample (B, C, H, W), timestep (1,), labels (B,) or None."""
        raise NotImplementedError


class TorchUnet(Unet):
    """The torch network in eager mode; the time embedding is computed once per call, as in ours."""

    def __init__(self, manifest: Manifest, checkpoint: Path, *, channels_last: bool = False) -> None:
        super().__init__(manifest)
        from pysdk.training.checkpoint import load_model

        self.format = torch.channels_last if channels_last else torch.contiguous_format
        network: nn.Module = load_model(checkpoint)[1]
        self.network = network.to(memory_format=self.format)  # type: ignore[call-overload]

    def predict(self, sample: Tensor, timestep: Tensor, labels: Tensor | None) -> Tensor:
        sample = sample.contiguous(memory_format=self.format)
        output: Tensor = self.network(sample, timestep) if labels is None else self.network(sample, timestep, labels)
        return output


class OnnxUnet(Unet):
    """The plan's ONNX file through `InferenceSession.run`, with numpy arrays in and out."""

    def __init__(self, plan: Plan, *, threads: int) -> None:
        super().__init__(plan.manifest)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        network = bytes(plan.member("network.onnx"))
        self.session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

    def run(self, x: np.ndarray, t: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """The network on numpy arrays."""
        inputs = {"x": x, "t": t} | ({} if labels is None else {"label": labels})
        output: np.ndarray = self.session.run(None, inputs)[0]
        return output

    def predict(self, sample: Tensor, timestep: Tensor, labels: Tensor | None) -> Tensor:
        output = self.run(sample.numpy(), timestep.numpy(), None if labels is None else labels.numpy())
        return torch.from_numpy(output)


def ddim_scheduler(manifest: Manifest) -> DDIMScheduler:
    """DDIMScheduler on the plan's schedule, otherwise with its defaults."""
    return DDIMScheduler(**_shared(manifest))


def ddpm_scheduler(manifest: Manifest) -> DDPMScheduler:
    """DDPMScheduler on the plan's schedule, with the variance of the model."""
    return DDPMScheduler(**_shared(manifest), variance_type=manifest.model.variance_type)


def ddim_pipeline(unet: Unet, manifest: Manifest) -> Callable[..., Any]:
    """The stock pipeline, silent."""
    pipeline: Any = DDIMPipeline(unet=unet, scheduler=ddim_scheduler(manifest))
    pipeline.set_progress_bar_config(disable=True)
    made: Callable[..., Any] = pipeline
    return made


def _shared(manifest: Manifest) -> dict[str, Any]:
    clip = manifest.defaults.clip
    if clip.kind == "dynamic":
        raise ValueError("the benchmark compares plans that clamp or do not clip; this one has a dynamic threshold")
    return {
        "num_train_timesteps": len(manifest.schedule.betas or ()),
        "trained_betas": np.array(manifest.schedule.betas),
        "prediction_type": manifest.model.prediction_type,
        "clip_sample": clip.kind == "clamp",
        "clip_sample_range": clip.limit,
    }
