"""What an importer hands to the lowering: a torch module and everything the plan has to say about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pysdk.errors import CheckpointError
from pysdk.manifest import DefaultsInfo, ModelInfo, ScheduleInfo
from pysdk.schedule import Schedule
from pysdk.training.checkpoint import CONFIG, load_model


@dataclass(frozen=True)
class Network:
    """A denoiser on the CPU in evaluation mode.

    Attributes:
        module: forward(x, t[, label]) of float32 (B, C, H, W), float32 (1,) or (B,), int64 (B,) to float32
            (B, out_channels, H, W).
        model: shapes, classes and how to read the output.
        schedule: the forward process it was trained on.
        defaults: what `Sampler.sample()` does when it is not told.
    """

    module: nn.Module
    model: ModelInfo
    schedule: ScheduleInfo
    defaults: DefaultsInfo

    def make_schedule(self) -> Schedule:
        """The schedule as an object."""
        return Schedule.from_betas(self.schedule.betas)


def load_network(checkpoint: Path, defaults: DefaultsInfo) -> Network:
    """A network from a checkpoint folder of `pysdk train`.

    Raises:
        CheckpointError: the folder is missing, holds no checkpoint, or its weights do not fit.
    """
    if not checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint} is no folder; expected one written by `pysdk train`, with {CONFIG} in it.")
    config, module = load_model(checkpoint)
    card = checkpoint / "LICENSE"
    model = ModelInfo(
        name=config.name,
        shape=config.unet.image_shape,
        out_channels=config.unet.out_channels,
        prediction_type=config.prediction_type,  # type: ignore[arg-type]  # the manifest checks it when it is written
        variance_type="learned_range" if config.unet.learn_variance else "fixed_small",
        num_classes=config.unet.num_classes,
        null_label=config.unet.num_classes if config.unet.null_label else None,
        class_names=config.class_names,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        license=card.read_text() if card.is_file() else "",
    )
    betas = tuple(config.make_schedule().betas.tolist())
    return Network(module, model, ScheduleInfo(name=config.schedule, betas=betas), defaults)
