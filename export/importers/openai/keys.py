"""Weights of improved-diffusion's and guided-diffusion's networks under the names of `pysdk.training.unet`.

The layers are the same. Names differ, 1x1 convolutions of attention have one axis less, and attention's qkv channels
are by default ordered (heads, 3, head_channels), here always (3, heads, head_channels).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from pysdk.errors import CheckpointError, OptionError
from pysdk.export.importers.openai.flags import Flags
from pysdk.training.unet import Attention

_IN_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "embed": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
}
_IN_ATTENTION = {"out": "proj_out"}
_MIDDLE = {("0", "block"): 0, ("0", "attention"): 1, ("1", "block"): 2}
_TOP = {"label_embed": "label_emb", "stem": "input_blocks.0.0", "head": "out"}


def upstream_name(name: str, names: Iterable[str]) -> str:
    """Upstream's name of one of our tensors, e.g. "down.0.block.conv1.weight" -> "input_blocks.1.0.in_layers.2.weight".

    Args:
        name: the tensor.
        names: all tensors of the module; where an upsampler stands depends on whether there is attention before it.
    """
    stage = re.fullmatch(r"(down|middle|up|upsample)\.(\d+)\.(block|attention)\.([^.]+)(\..+)", name)
    if stage is None:
        top, _, rest = name.partition(".")
        return f"{_TOP.get(top, top)}.{rest}"
    part, index, role, layer, rest = stage.groups()
    inner = (_IN_BLOCK if role == "block" else _IN_ATTENTION).get(layer, layer) + rest
    if part == "down":
        return f"input_blocks.{int(index) + 1}.{int(role == 'attention')}.{inner}"
    if part == "middle":
        return f"middle_block.{_MIDDLE[index, role]}.{inner}"
    if part == "up":
        return f"output_blocks.{index}.{int(role == 'attention')}.{inner}"
    return f"output_blocks.{index}.{1 + (f'up.{index}.attention.norm.weight' in names)}.{inner}"


def set_heads(module: nn.Module, flags: Flags) -> None:
    """Give every attention upstream's number of heads, which is not a number of weights.

    Raises:
        OptionError: the channels of an attention cannot be divided so.
    """
    for name, attention in module.named_modules():
        if not isinstance(attention, Attention):
            continue
        channels = attention.qkv.in_channels
        flag, count = "num_heads", flags.num_heads
        if flags.num_head_channels != -1:
            flag, count = "num_head_channels", max(1, channels // flags.num_head_channels)
        elif name.startswith("up") and flags.num_heads_upsample != -1:
            flag, count = "num_heads_upsample", flags.num_heads_upsample
        if channels % getattr(flags, flag):
            raise OptionError(f"--{flag} is {getattr(flags, flag)}, which does not divide an attention of {channels}")
        attention.heads = count


def load_upstream(module: nn.Module, weights: Mapping[str, Tensor], source: str, *, legacy_order: bool) -> None:
    """Fill a module of our layers, made on any device, with upstream's float32 weights.

    Args:
        module: built like the network the weights are of, its attention heads set.
        weights: upstream's state dict.
        source: what errors call it.
        legacy_order: qkv channels are ordered (heads, 3, head_channels).

    Raises:
        CheckpointError: tensors are missing, left over, or of another shape.
    """
    ours = module.state_dict()
    names = {name: upstream_name(name, ours.keys()) for name in ours}
    missing, extra = sorted(set(names.values()) - weights.keys()), sorted(weights.keys() - set(names.values()))
    if missing:
        raise CheckpointError(f"{source} lacks {len(missing)} tensors of this network: {_some(missing)}")
    if extra:
        raise CheckpointError(f"{source} has {len(extra)} tensors this network does not have: {_some(extra)}")
    heads = {f"{name}.qkv": part.heads for name, part in module.named_modules() if isinstance(part, Attention)}
    converted = {}
    for name, upstream in names.items():
        tensor, shape = weights[upstream], tuple(ours[name].shape)
        layer = name.rpartition(".")[0]
        flat = shape[:2] if ".attention." in name and len(shape) == 4 else None  # upstream: a 1-D convolution
        expected = shape if flat is None else (*flat, 1)
        if tuple(tensor.shape) != expected:
            raise CheckpointError(
                f"{source}: {upstream} has shape {tuple(tensor.shape)}, this network needs {expected}"
            )
        if legacy_order and layer in heads:
            tensor = tensor.reshape(heads[layer], 3, -1, *tensor.shape[1:]).transpose(0, 1)
        converted[name] = tensor.reshape(shape).contiguous()
    module.load_state_dict(converted, assign=True)
    module.requires_grad_(False).eval()


def check_flags(weights: Mapping[str, Tensor], flags: Flags, source: str) -> None:
    """CheckpointError that names the flag, if one says something else than the weights; where they say nothing, pass.

    Reads the output blocks, which show the ends of levels whatever they are resampled with.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    channels = shapes.get("input_blocks.0.0.weight", (0, 3))[1]
    if channels == 6:
        raise CheckpointError(f"{source} takes 6 channels: a super-resolution network, which needs a second image")
    width = shapes.get("time_embed.0.weight", (0, flags.num_channels))[1]
    ends = sorted(
        {int(m[1]) for name in shapes if (m := re.match(r"output_blocks\.(\d+)\.[12]\.(conv|in_layers)", name))}
    )
    blocks = 1 + max((int(m[1]) for name in shapes if (m := re.match(r"output_blocks\.(\d+)\.", name))), default=0)
    per_level = ends[0] if ends else blocks - 1
    first_of_level = range(0, blocks, per_level + 1)
    found: list[tuple[str, object, object]] = [("num_channels", flags.num_channels, width)]
    if "out.2.weight" in shapes:
        found.append(("learn_sigma", flags.learn_sigma, shapes["out.2.weight"][0] == 2 * channels))
    found.append(("class_cond", flags.class_cond, "label_emb.weight" in shapes))
    embedded = shapes.get("middle_block.0.emb_layers.1.weight"), shapes.get("middle_block.0.in_layers.2.weight")
    if embedded[0] and embedded[1]:
        found.append(("use_scale_shift_norm", flags.use_scale_shift_norm, embedded[0][0] == 2 * embedded[1][0]))
    if ends:
        updown = f"output_blocks.{ends[0]}.1.in_layers.2.weight", f"output_blocks.{ends[0]}.2.in_layers.2.weight"
        found.append(("resblock_updown", flags.resblock_updown, any(name in shapes for name in updown)))
    found.append(("num_res_blocks", flags.num_res_blocks, per_level))
    widths = [shapes.get(f"output_blocks.{i}.0.in_layers.2.weight", (0,))[0] for i in reversed(first_of_level)]
    if all(widths):
        given = ",".join(f"{level:g}" for level in flags.levels)
        found.append(("channel_mult", given, ",".join(f"{w / max(width, 1):g}" for w in widths)))
    attended = [
        i for i, block in enumerate(reversed(first_of_level)) if f"output_blocks.{block}.1.qkv.weight" in shapes
    ]
    sizes = ",".join(str(flags.image_size // 2**level) for level in attended) or "none"
    asked = ",".join(str(flags.image_size // 2**level) for level in flags.attention_levels) or "none"
    found.append(("attention_resolutions", asked, sizes))
    for flag, said, weighed in found:
        if said != weighed:
            implied = (
                "" if flag != "channel_mult" or flags.channel_mult else f" (as --image_size {flags.image_size} has it)"
            )
            raise CheckpointError(f"--{flag} is {said}{implied}, but the weights of {source} have {weighed}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
