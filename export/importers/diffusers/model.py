"""Pipelines and networks saved by diffusers: DDPMPipeline, DDIMPipeline and UNet2DModel folders, and Hub ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pysdk.distribution import require
from pysdk.errors import CheckpointError, OptionError
from pysdk.export.importers.diffusers.folder import CONFIG, INDEX, INSTALL, Source, is_hub_id, open_source
from pysdk.export.importers.diffusers.scheduler import DDIM, DDPM, STEPS, Scheduler, SchedulerConfig, read_scheduler
from pysdk.export.importers.diffusers.unet import EmbedOnce, load_unet
from pysdk.export.network import Network
from pysdk.export.source_file import first_bytes
from pysdk.plan.manifest import ModelInfo


def matches(source: str) -> bool:
    """Whether `source` is a folder of diffusers, or a Hub id that is no local path."""
    path = Path(source)
    if not path.is_dir():
        return is_hub_id(source) and not path.exists()
    return (
        (path / INDEX).is_file()
        or b'"_class_name"' in first_bytes(path / CONFIG, 4096)
        or any(path.glob("diffusion_pytorch_model*"))
    )


def load(source: str, options: dict[str, str]) -> Network:
    """The network with its scheduler as schedule and default solver.

    Options: revision (of a Hub repository), sample_size (if the config has none), null_label; for a network without a
    scheduler also scheduler ("DDPMScheduler" or "DDIMScheduler") and every field of that scheduler.

    Raises:
        CheckpointError: see `open_source`; or a setting that cannot be reproduced, or weights that do not fit.
        OptionError: an option that does not exist or that the files already answer.
        MissingDependencyError: diffusers is not installed.
    """
    require("diffusers", INSTALL)
    remaining = dict(options)
    found = open_source(source, remaining.pop("revision", None))
    shape = image_shape(found, remaining.pop("sample_size", None))
    num_classes, null_label = read_classes(found.config, remaining.pop("null_label", None))
    scheduler = choose_scheduler(found, remaining)
    check_channels(found.config, scheduler)
    module = load_unet(found.config, found.weights)
    wrapped = EmbedOnce(module).eval()
    network = Network(
        module=wrapped,
        model=ModelInfo(
            name=found.name,
            shape=shape,
            out_channels=found.config.get("out_channels", 3),
            prediction_type=scheduler.prediction_type,  # type: ignore[arg-type]  # checked by read_scheduler
            variance_type=scheduler.variance_type,  # type: ignore[arg-type]
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            description=f"Imported from diffusers ({found.pipeline or 'UNet2DModel'}).",
            license=found.license,
            num_classes=num_classes,
            null_label=null_label,
        ),
        schedule=scheduler.schedule,
        defaults=scheduler.defaults,
    )
    try_once(wrapped, network.model)
    return network


def image_shape(found: Source, option: str | None) -> tuple[int, int, int]:
    """C, H, W. OptionError or CheckpointError if the size is given twice or not at all."""
    size = found.config.get("sample_size")
    if size is None and option is None:
        raise CheckpointError(
            f"{found.name!r} does not say its sample_size; give --sample_size 32 or --sample_size 32,48"
        )
    if size is not None and option is not None:
        raise OptionError(f"sample_size is {option!r}, but {found.name!r} says {size}; leave it out")
    if option is not None:
        size = [int(part) if part.isdecimal() else 0 for part in option.split(",")]
        size = size * 2 if len(size) == 1 else size
    height_width = [size, size] if isinstance(size, int) else size
    channels = found.config.get("in_channels", 3)
    if not (isinstance(height_width, list) and len(height_width) == 2):
        raise CheckpointError(f"sample_size is {size!r}, expected one number or height and width")
    if not all(type(value) is int and value > 0 for value in (channels, *height_width)):
        raise CheckpointError(f"in_channels is {channels!r} and sample_size {size!r}, expected numbers above 0")
    return channels, *height_width


def read_classes(config: Mapping[str, Any], null_label: str | None) -> tuple[int | None, int | None]:
    """num_classes and null_label of the plan. CheckpointError for embeddings of anything but a class."""
    kind, count = config.get("class_embed_type"), config.get("num_class_embeds")
    if kind is not None:
        raise CheckpointError(
            f"class_embed_type is {kind!r}: the label is then a number or a vector; only None with num_class_embeds, a "
            "table of classes, can be built"
        )
    if null_label is None:
        return count, None
    if count is None or not null_label.isdecimal() or not int(null_label) < count or count == 1:
        raise OptionError(f"null_label is {null_label!r}, expected one of the network's {count or 0} classes, from 0")
    null = int(null_label)
    return count - (null == count - 1), null


def choose_scheduler(found: Source, options: dict[str, str]) -> Scheduler:
    """The scheduler of the files, or of the options if they have none."""
    config, name = found.scheduler, "scheduler_config.json"
    if config is None:
        name = "scheduler options"
        known = (*SchedulerConfig.__struct_fields__, "scheduler")
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise OptionError(f"a UNet2DModel has no option {unknown[0]!r}; it has {', '.join(known)}")
        config = {key: read_value(value) for key, value in options.items()}
        config["_class_name"] = config.pop("scheduler", DDPM)
    elif options:
        raise OptionError(
            f"{next(iter(options))!r} is no option of {found.name!r}, whose scheduler_config.json says all"
        )
    kind = config.get("_class_name")
    if kind not in STEPS:
        raise CheckpointError(
            f"{name}: the scheduler is a {kind!r}, only {DDPM} and {DDIM} can be reproduced; "
            f"save the pipeline with {DDIM}.from_config(pipeline.scheduler.config)"
        )
    # a DDIMPipeline converts its scheduler, a DDPMPipeline runs either
    kind = DDIM if found.pipeline == "DDIMPipeline" else kind
    steps = STEPS[DDPM if found.pipeline == "DDPMPipeline" else kind]
    return read_scheduler(config, name, kind=kind, steps=steps)


def read_value(text: str) -> Any:
    """JSON, else the word itself; null and true in Python's spelling too."""
    try:
        return json.loads({"None": "null", "True": "true", "False": "false"}.get(text, text))
    except (ValueError, RecursionError):
        return text


def check_channels(config: Mapping[str, Any], scheduler: Scheduler) -> None:
    """CheckpointError unless the output has the channels that the scheduler reads."""
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    expected = inputs * (2 if scheduler.variance_type == "learned_range" else 1)
    if outputs != expected:
        raise CheckpointError(
            f"the network has {inputs} channels in and {outputs} out, expected {expected} out for "
            f"solver {scheduler.defaults.solver} with variance_type {scheduler.variance_type}"
        )


def try_once(module: nn.Module, model: ModelInfo) -> None:
    """CheckpointError unless the network runs on its own image size, which diffusers does not check."""
    x, t = torch.zeros(1, *model.shape), torch.zeros(1)
    labels = () if model.num_classes is None else (torch.zeros(1, dtype=torch.int64),)
    try:
        with torch.no_grad():
            module(x, t, *labels)
    except Exception as error:  # torch raises what it likes for shapes that do not fit
        raise CheckpointError(
            f"the network does not run on images of {model.shape}: {' '.join(str(error).split())[:200]}"
        ) from None
