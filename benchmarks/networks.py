"""The networks that engines are compared on; made once and kept in build/benchmarks, but for their plans."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.workload import BUILT
from pysdk import Plan, _native
from pysdk.engines import choice, registry
from pysdk.export.engines.native import float64
from pysdk.export.engines.native.builder import build_native
from pysdk.export.engines.native.weights import unpack
from pysdk.export.lowering.onnx_files import OnnxFiles
from pysdk.export.lowering.torch_to_onnx import export_onnx
from pysdk.export.network import Network
from pysdk.export.preparation import prepare
from pysdk.files.atomic import atomic_file
from pysdk.plan.manifest import NETWORK_NAME, Manifest
from pysdk.plan.writer import write_plan

CIFAR10 = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
"""DDPM's network for CIFAR-10, 35.7 million parameters."""

CELEBAHQ256 = {
    "sample_size": 256,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
}
"""DDPM's network for CelebA-HQ 256, 113.7 million parameters."""

_DDPM = {
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "attention_head_dim": None,
}
_CONFIGS = {"cifar10": CIFAR10, "celebahq256": CELEBAHQ256}
_SMALLER = 4  # times fewer channels: a sixteenth of the work


@dataclass(frozen=True)
class Inputs:
    """One call: x float32 (B, C, H, W), t float32 (1,), labels int64 (B,) or None."""

    x: NDArray[np.float32]
    t: NDArray[np.float32]
    labels: NDArray[np.int64] | None

    def named(self) -> dict[str, NDArray[Any]]:
        """By the names of the ONNX file's inputs."""
        return {"x": self.x, "t": self.t} | ({} if self.labels is None else {"label": self.labels})


@dataclass(frozen=True)
class BenchmarkNetwork:
    """A network as a torch module and an ONNX file.

    Attributes:
        folder: holds everything made from it.
        source: what it was loaded from.
        network: the torch module with its description.
        manifest: its plans', without engines.
    """

    folder: Path
    source: Path
    network: Network
    manifest: Manifest

    @cached_property
    def onnx(self) -> Path:
        """The ONNX file, the same that its plans have."""
        path = self.folder / NETWORK_NAME
        if not path.is_file():
            with atomic_file(path) as file:
                file.write(export_onnx(self.network).graph)
        return path

    def plan(self, batch: int, threads: int) -> Path:
        """A new plan with the native engine, its program as `pysdk build` makes it when it is not told to tune."""
        onnx, model = OnnxFiles(self.onnx.read_bytes()), self.network.model
        steps = len(self.manifest.schedule.betas or ())
        found = build_native(model, onnx, batch, steps, threads, check_seconds=0)
        path = self.folder / f"batch{batch}-threads{threads}.plan"
        write_plan(path, msgspec.structs.replace(self.manifest, engines=(found.info,)), {**onnx.members, **found.files})
        return path

    def inputs(self, batch: int) -> Inputs:
        """Random images at t = 500."""
        x = np.random.default_rng(0).standard_normal((batch, *self.network.model.shape), np.float32)
        classes = self.network.model.num_classes
        labels = None if classes is None else np.arange(batch, dtype=np.int64) % classes
        return Inputs(x, np.array([500], np.float32), labels)


class Networks:
    """Networks and plans of one run, each made once."""

    def __init__(self, checkpoint: Path, threads: int, *, small: bool) -> None:
        self.checkpoint, self.threads, self.small = checkpoint, threads, small
        self._networks: dict[str, BenchmarkNetwork] = {}
        self._plans: dict[tuple[str, int], Path] = {}

    def network(self, name: str) -> BenchmarkNetwork:
        """ "shipped", "cifar10" or "celebahq256"."""
        if name not in self._networks:
            shipped = name == "shipped"
            self._networks[name] = (
                trained_network(self.checkpoint) if shipped else diffusers_network(name, small=self.small)
            )
        return self._networks[name]

    def plan(self, name: str, batch: int) -> Path:
        """A plan that was made in this run."""
        if (name, batch) not in self._plans:
            self._plans[name, batch] = self.network(name).plan(batch, self.threads)
        return self._plans[name, batch]

    def call(self, name: str, batch: int, inputs: Inputs, threads: int | None = None) -> NativeCall:
        """The native engine on a chain's buffers, filled with these inputs."""
        return NativeCall(self.plan(name, batch), inputs, threads or self.threads)


class NativeCall:
    """The native engine of a plan, bound to a chain that is never run."""

    def __init__(self, plan: Path, inputs: Inputs, threads: int) -> None:
        with Plan.open(plan) as opened:
            info, _ = choice.choose(opened, "native")
            engine, model = registry.load(opened, info, threads), opened.manifest.model
        batch = len(inputs.x)
        self.chain = _native.Chain(batch=batch, shape=model.shape, out_channels=model.out_channels, threads=threads)
        self.chain.network_input[:] = inputs.x
        self.chain.network_time[:] = inputs.t
        self.chain.network_labels[:] = 0 if inputs.labels is None else inputs.labels
        network = engine.bind(self.chain)
        assert isinstance(network, _native.Network)
        self.network = network

    def __call__(self) -> NDArray[np.float32]:
        """One step; the chain's own output array."""
        self.network()
        return self.chain.network_output


def float64_output(plan: Path, inputs: Inputs) -> NDArray[np.float64]:
    """The plan's network on the first image in float64, (1, out_channels, H, W)."""
    with Plan.open(plan) as opened:
        info = next(info for info in opened.manifest.engines if info.kind == "native")
        program = unpack(*(opened.member(name) for name in (info.member, *info.data)))
        labels = np.zeros(1, np.int64) if inputs.labels is None else inputs.labels[:1]
        return float64.run(program, inputs.x[:1], float(inputs.t[0]), labels)


def diffusers_network(name: str, *, small: bool) -> BenchmarkNetwork:
    """ "cifar10" or "celebahq256" as diffusers configures it, with random weights; `small` to try the benchmark out."""
    config: dict[str, Any] = _DDPM | _CONFIGS[name]
    if small:
        config |= {"block_out_channels": tuple(size // _SMALLER for size in config["block_out_channels"])}
    folder = BUILT / f"{name}-{_digest(json.dumps(config).encode())}"
    source = folder / "model"
    if not source.is_dir():
        from diffusers import UNet2DModel

        partial = folder / "model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        torch.manual_seed(0)
        network: Any = UNet2DModel(**config)
        network.save_pretrained(partial)
        partial.rename(source)
    return _open(source, folder)


def trained_network(checkpoint: Path) -> BenchmarkNetwork:
    """The network of a checkpoint folder."""
    digest = _digest((checkpoint / "model.safetensors").read_bytes())
    return _open(checkpoint, BUILT / f"{checkpoint.name}-{digest}")


def _open(source: Path, folder: Path) -> BenchmarkNetwork:
    folder.mkdir(parents=True, exist_ok=True)
    unchanged = {"solver": None, "steps": None, "guidance_scale": None, "importer_options": None}
    network, manifest = prepare(source, verbose=False, **unchanged)
    return BenchmarkNetwork(folder, source, network, manifest)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
