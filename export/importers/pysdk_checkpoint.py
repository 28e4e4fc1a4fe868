"""Checkpoint folders of `pysdk train`."""

from __future__ import annotations

from pathlib import Path

from pysdk.errors import CheckpointError
from pysdk.export.importers import no_options
from pysdk.export.network import Network
from pysdk.export.source_file import check_link
from pysdk.files.regular_file import MAX_JSON, read_file
from pysdk.plan.manifest import DefaultsInfo, ModelInfo, ScheduleInfo
from pysdk.training.checkpoint import CONFIG, WEIGHTS, load_model

# fresh noise in every step corrects the errors of small networks, which DDIM's eta 0 carries to the end
DEFAULTS = DefaultsInfo(solver="ddpm", steps=50, options={"variance": "small"})


def matches(source: str) -> bool:
    """Whether `source` is such a folder."""
    return (Path(source) / CONFIG).is_file()


def load(source: str, options: dict[str, str]) -> Network:
    """The network with its averaged weights.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights do not fit.
        OptionError: any option; a checkpoint says everything itself.
    """
    no_options("a checkpoint of `pysdk train`", options)
    checkpoint = Path(source)
    licence = checkpoint / "LICENSE"
    for path in (checkpoint / CONFIG, checkpoint / WEIGHTS, licence):
        check_link(path, checkpoint)
    config, module = load_model(checkpoint)
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
        license=read_file(licence, MAX_JSON, CheckpointError).decode(errors="replace") if licence.is_file() else "",
    )
    betas = tuple(config.make_schedule().betas.tolist())
    return Network(module, model, ScheduleInfo(name=config.schedule, betas=betas), DEFAULTS)
