"""The UNet2DModel of diffusers with its weights, as a network whose timestep is embedded once a batch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pysdk.errors import CheckpointError
from pysdk.export.importers.diffusers.folder import CONFIG
from pysdk.export.importers.diffusers.scheduler import check_known
from pysdk.export.importers.torch_file import read_state_dict
from pysdk.export.source_file import check_file

DOWN_BLOCKS = (
    "DownBlock2D",
    "AttnDownBlock2D",
    "ResnetDownsampleBlock2D",
    "SkipDownBlock2D",
    "AttnSkipDownBlock2D",
    "KDownBlock2D",
)
UP_BLOCKS = (
    "UpBlock2D",
    "AttnUpBlock2D",
    "ResnetUpsampleBlock2D",
    "SkipUpBlock2D",
    "AttnSkipUpBlock2D",
    "KUpBlock2D",
)

_MOST = {"layers_per_block": 64, "block_out_channels": 16384, "sample_size": 16384, "time_embedding_dim": 65536}
_MAX_LEVELS = 12

_OLD_ATTENTION = re.compile(r"\.(query|key|value|proj_attn)\.(weight|bias)$")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class EmbedOnce(nn.Module):
    """A UNet2DModel as forward(x, t[, label]) of float32 (B, C, H, W), float32 (1,) or (B,), int64 (B,)."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        unet.time_proj = Unrepeated(unet.time_proj)  # type: ignore[arg-type]
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        out: Tensor = self.unet(x, t[:, None], class_labels=label, return_dict=False)[0]
        return out


class Unrepeated(nn.Module):
    """A projection of t that undoes the network's repetition of t for each image: (K, B) -> (K, E).

    UNet2DModel multiplies t by B ones. A column of K timesteps becomes (K, B), whose first column is what was
    given; with K = 1 all that follows is computed once and broadcast.
    """

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, t: Tensor) -> Tensor:
        given = t[:, 0]
        out: Tensor = self.projection(given.long() if isinstance(self.projection, nn.Embedding) else given)
        return out


def load_unet(config: Mapping[str, Any], path: Path) -> nn.Module:
    """The UNet2DModel of a config.json with the weights in a file.

    Raises:
        CheckpointError: a field or block that cannot be built, or weights that are damaged or of another network.
    """
    from diffusers import UNet2DModel

    check_known(config, tuple(inspect.signature(UNet2DModel.__init__).parameters), "UNet2DModel", CONFIG)
    check_blocks(config)
    if config.get("time_embedding_type", "positional") not in ("positional", "learned"):
        raise CheckpointError(
            f"{CONFIG}: time_embedding_type is {config['time_embedding_type']!r}, expected 'positional' or "
            "'learned': 'fourier' takes the logarithm of a sigma, which for timestep 0 is infinite"
        )
    check_numbers(config)
    weights = read_weights(path)

    def make() -> nn.Module:
        try:
            made: nn.Module = UNet2DModel.from_config(dict(config))
        except Exception as error:  # the constructor checks little and may raise anything
            raise CheckpointError(f"{CONFIG}: diffusers cannot make this network: {error}") from None
        return made

    with torch.device("meta"):  # no memory is spent before the weights are known to fit
        expected = make().state_dict()
    weights = {new_name(key, expected): value for key, value in weights.items()}
    for problem, keys in (
        ("lacks", expected.keys() - weights.keys()),
        ("has unknown", weights.keys() - expected.keys()),
    ):
        if keys:
            raise CheckpointError(
                f"{str(path)!r} {problem} {len(keys)} tensors, such as {min(keys)!r}: is config.json its own?"
            )
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{str(path)!r} has {key!r} of shape {tuple(value.shape)}, "
                f"config.json makes it {tuple(expected[key].shape)}"
            )
    module = make()
    module.load_state_dict(weights)
    return module.eval()


def check_numbers(config: Mapping[str, Any]) -> None:
    """CheckpointError for numbers that no network has, and that would take hours or all memory to find wrong."""
    for name, value in config.items():
        numbers = value if isinstance(value, list) else [value]
        most = _MOST.get(name, 1_000_000)
        if len(numbers) > _MAX_LEVELS or any(type(number) is int and number > most for number in numbers):
            raise CheckpointError(f"{CONFIG}: {name[:80]} is {str(value)[:80]}, expected numbers up to {most}")


def check_blocks(config: Mapping[str, Any]) -> None:
    """CheckpointError for a block that UNet2DModel lists but cannot run."""
    for field, known in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
        for block in config.get(field, ()):
            if str(block).removeprefix("UNetRes") not in known:
                reason = "attends to a text" if "Cross" in str(block) else "has no skip connections"
                raise CheckpointError(
                    f"{CONFIG}: {field} has {block!r}, which UNet2DModel cannot run (it {reason}); expected "
                    f"{', '.join(known)}"
                )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, float32. CheckpointError if the file is damaged or holds code, which is never run."""
    if path.suffix != ".safetensors":
        return read_state_dict(path)
    check_file(path)
    try:
        return {key: value.float() for key, value in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} is not a safetensors file: {error}") from None


def new_name(key: str, expected: Mapping[str, Tensor]) -> str:
    """The present name of a tensor of an attention that was saved before diffusers renamed them."""
    match = _OLD_ATTENTION.search(key)
    if match is None or key in expected:
        return key
    return f"{key[: match.start()]}.{_NEW_ATTENTION[match[1]]}.{match[2]}"
