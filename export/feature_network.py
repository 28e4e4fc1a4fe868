"""Lowering the classifier to the ONNX file that `pysdk evaluate` looks at images with.

Run as `python -m pysdk.export.feature_network models/fashion-mnist-classifier --size 28`.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from pysdk.cli.commands import run
from pysdk.errors import ExportError
from pysdk.evaluation.features import FILE
from pysdk.export.lowering.torch_to_onnx import OPSET, quiet, without_traces
from pysdk.files.atomic import atomic_file
from pysdk.training.classifier import Classifier, load


def export_features(model: Classifier, height: int, width: int) -> bytes:
    """An ONNX file: float32 (n, C, H, W) in [-1, 1] to `features` (n, 64) and `logits` (n, K)."""
    channels = model.blocks[0][0].in_channels  # type: ignore[index]
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (torch.zeros(2, channels, height, width),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["features", "logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65_536)},),
            verbose=False,
        )
    if program is None:  # the signature allows it, for exports to a path
        raise ExportError("torch.onnx.export returned nothing")
    return bytes(without_traces(program.model_proto).SerializeToString())


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--size", type=click.IntRange(12), default=28, show_default=True, help="Height and width of the images.")
def main(folder: Path, size: int) -> None:
    """Write FOLDER/features.onnx from the classifier in FOLDER."""
    data = export_features(load(folder), size, size)
    with atomic_file(folder / FILE) as file:
        file.write(data)
    click.echo(f"wrote {folder / FILE}")


if __name__ == "__main__":
    run(main)
