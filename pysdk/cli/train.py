"""`pysdk train`: one command from a data set to a checkpoint that `pysdk build` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pysdk.diffusion.schedule import SCHEDULES
from pysdk.distribution import install_extra, require


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between: "1,2,4"."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(int(part) for part in value.split(",") if part)
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers such as 1,2,4", param, ctx)


@click.command("train")
@click.option("--data", required=True, help="fashion-mnist, cifar10:FOLDER, a folder of pictures or an .npz file.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the run; an existing one is resumed."
)
@click.option("--name", help="Name of the model (default: the data's).")
@click.option("--unconditional", is_flag=True, help="Do not use the labels.")
@click.option("--device", default=None, help="torch device (default: cuda if there is one, else cpu).")
@click.option("--steps", default=10_000, show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--learning-rate", default=2e-4, show_default=True)
@click.option("--warmup", default=500, show_default=True)
@click.option("--weight-decay", default=0.0, show_default=True)
@click.option("--grad-clip", default=1.0, show_default=True)
@click.option("--ema-decay", default=0.999, show_default=True)
@click.option("--loss", default="simple", show_default=True, type=click.Choice(["simple", "vlb", "hybrid"]))
@click.option(
    "--label-dropout", default=0.1, show_default=True, help="Share of null labels; 0 trains without a null label."
)
@click.option("--flip", is_flag=True, help="Mirror images at random.")
@click.option("--amp", default="auto", show_default=True, type=click.Choice(["auto", "bfloat16", "off"]))
@click.option("--save-every", default=500, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--schedule", default="linear", show_default=True, type=click.Choice(sorted(SCHEDULES)))
@click.option("--timesteps", default=1000, show_default=True, help="T of the schedule.")
@click.option(
    "--prediction-type",
    default="epsilon",
    show_default=True,
    type=click.Choice(["epsilon", "sample", "v_prediction"]),
)
@click.option("--model-channels", default=64, show_default=True)
@click.option("--channel-mult", default="1,2,2", show_default=True, type=Numbers())
@click.option("--num-res-blocks", default="2", show_default=True, type=Numbers(), help="One number, or one per level.")
@click.option("--attention-levels", default="1", show_default=True, type=Numbers())
@click.option("--head-channels", default=32, show_default=True)
@click.option("--norm-groups", default=32, show_default=True)
@click.option("--dropout", default=0.0, show_default=True)
@click.option("--learn-variance", is_flag=True)
@click.option("--scale-shift-norm", is_flag=True)
@click.option("--resample", default="conv", show_default=True, type=click.Choice(["conv", "pool", "resblock"]))
def command(data: str, out: Path, name: str | None, unconditional: bool, device: str | None, **settings: Any) -> None:
    """Train a U-Net and write a checkpoint folder that `pysdk build` takes. Ctrl-C stops; the same command resumes."""
    for package in ("torch", "safetensors"):
        require(package, install_extra("train"))
    from dataclasses import fields

    from pysdk.datasets.loading import load_dataset
    from pysdk.training.checkpoint import ModelConfig
    from pysdk.training.device import training_device
    from pysdk.training.fit import FitConfig, fit
    from pysdk.training.unet import UNetConfig

    target = training_device(device)

    def chosen(config: type) -> dict[str, Any]:
        return {field.name: settings[field.name] for field in fields(config) if field.name in settings}

    dataset = load_dataset(data)
    blocks = settings["num_res_blocks"]
    settings["num_res_blocks"] = blocks[0] if len(blocks) == 1 else blocks
    classes = None if unconditional else dataset.num_classes
    _, channels, height, width = dataset.images.shape
    model = ModelConfig(
        name=name or Path(data.partition(":")[0]).stem,
        unet=UNetConfig(
            image_shape=(channels, height, width),
            num_classes=classes,
            null_label=classes is not None and settings["label_dropout"] > 0,
            **chosen(UNetConfig),
        ),
        schedule=settings["schedule"],
        schedule_options={"timesteps": settings["timesteps"]},
        prediction_type=settings["prediction_type"],
        class_names=None if unconditional else dataset.class_names,
    )
    trainer = fit(dataset, model, FitConfig(**chosen(FitConfig)), out, target)
    click.echo(f"{out}: {trainer.step} steps in {trainer.seconds:.0f} s, last loss {trainer.history[-1][1]:.4f}")
