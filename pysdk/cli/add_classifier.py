"""pysdk add-classifier: puts a classifier of guided-diffusion into a plan."""

from __future__ import annotations

from pathlib import Path

import click

from pysdk.distribution import install_extra, require
from pysdk.files.atomic import check_target
from pysdk.plan.reader import Plan


@click.command("add-classifier", context_settings={"ignore_unknown_options": True})
@click.argument("plan", type=click.Path(path_type=Path))
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Plan to write (default: PLAN itself).")
def command(plan: Path, checkpoint: Path, flags: tuple[str, ...], out: Path | None) -> None:
    """Add a noisy-image classifier of guided-diffusion, CHECKPOINT, to PLAN.

    FLAGS are those of guided-diffusion's classifier_sample.py: --image_size 64 --classifier_depth 4 ...
    """
    for package in ("torch", "onnx", "onnxscript"):
        require(package, install_extra("export"))
    from pysdk.export.build_engine import pairs
    from pysdk.export.classifier.adding import add_classifier
    from pysdk.export.classifier.openai import load_classifier

    if out is not None:
        check_target(out)
    Plan.open(plan).close()  # before the slow steps
    classifier = load_classifier(checkpoint, pairs(flags))
    manifest = add_classifier(plan, classifier, classifier.classes, out=out, name=checkpoint.stem)
    assert manifest.classifier is not None
    click.echo(f"max |ONNX - torch| of the gradient: {manifest.classifier.max_abs_error:.2e}", err=True)
    click.echo(f"wrote {out or plan}")
