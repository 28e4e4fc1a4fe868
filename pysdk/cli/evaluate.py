"""pysdk evaluate: images of a plan, a folder or an .npz against a reference."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from pysdk.cli.parsing import max_memory_option, trust_option
from pysdk.errors import OptionError
from pysdk.evaluation.features import OnnxFeatures
from pysdk.evaluation.kernel import SUBSET_SIZE
from pysdk.evaluation.manifold import NEIGHBOURS
from pysdk.evaluation.measure import KEPT, METRICS, check_metrics, compare, measure
from pysdk.evaluation.sources import Source, open_source, plan_source
from pysdk.files.atomic import atomic_file, check_target
from pysdk.sampler import Sampler

DEFAULT_FEATURES = "models/fashion-mnist-classifier"
DEFAULT_SAMPLES = 10_000


@click.command("evaluate")
@click.argument("images")
@click.option("--reference", default="fashion-mnist", show_default=True, help="What to compare with; as IMAGES.")
@click.option("--split", default="test", show_default=True, help="Of a reference that is a data set.")
@click.option("--images-split", default="train", show_default=True, help="Of IMAGES that are a data set.")
@click.option(
    "--features",
    default=DEFAULT_FEATURES,
    show_default=True,
    help="ONNX file that turns images into features, or a folder with features.onnx.",
)
@click.option("-n", "--samples", type=int, help=f"Images to take (default: all; of a plan {DEFAULT_SAMPLES}).")
@click.option("--metrics", default=",".join(METRICS), show_default=True, help="Which, with commas between.")
@click.option("--neighbours", default=NEIGHBOURS, show_default=True, help="k of precision and recall.")
@click.option("--subset-size", type=int, help=f"Of the kernel distance (default: {SUBSET_SIZE}, or all if fewer).")
@click.option("--keep", default=KEPT, show_default=True, help="Features kept for all metrics but frechet.")
@click.option("--batch-size", default=256, show_default=True, type=click.IntRange(1), help="Images at a time.")
@click.option("--seed", default=0, show_default=True, help="Of the samples, and of every random choice.")
@click.option("--solver", help="Of a plan (default: its own).")
@click.option("--steps", type=int, help="Of a plan (default: its own).")
@click.option("--guidance-scale", type=float, help="Of a plan (default: its own).")
@click.option("--threads", type=int, help="Processors to use (default: all).")
@max_memory_option
@trust_option
@click.option(
    "--work", type=click.Path(path_type=Path), help="Folder that keeps a plan's samples, to go on after a stop."
)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the result, which is also printed.")
def command(
    images: str,
    reference: str,
    split: str,
    images_split: str,
    features: str,
    samples: int | None,
    metrics: str,
    neighbours: int,
    subset_size: int | None,
    keep: int,
    batch_size: int,
    seed: int,
    solver: str | None,
    steps: int | None,
    guidance_scale: float | None,
    threads: int | None,
    max_memory: int | None,
    trust: bool,
    work: Path | None,
    out: Path | None,
) -> None:
    """Measure IMAGES, a .plan, a folder of pictures, an .npz or a data set, against a reference."""
    wanted = [word.strip() for word in metrics.split(",")]
    check_metrics(wanted)
    if out is not None:
        check_target(out)
    kept = 0 if wanted == ["frechet"] else keep
    sampling = {"solver": solver, "steps": steps, "guidance_scale": guidance_scale}
    given: dict[str, Any] = {name: value for name, value in sampling.items() if value is not None}
    extractor = OnnxFeatures(features, threads=threads, max_memory=max_memory, trust=trust)
    options: dict[str, Any] = {"keep": kept, "batch_size": batch_size, "seed": seed}
    settings: dict[str, Any] = {
        "images": images,
        "reference": f"{reference}, {split}",
        "features": features,
        "seed": seed,
    }
    with ExitStack() as stack:
        # what can be refused is, before the reference is gone through
        if images.endswith(".plan"):
            sampler = stack.enter_context(Sampler(images, threads=threads, max_memory=max_memory, trust=trust))
            sampler.sample(0, seed=seed, **given)
            judged = plan_source(sampler, DEFAULT_SAMPLES if samples is None else samples, seed, work=work, **given)
            settings |= sampling
        else:
            unused = [*given, *(["work"] if work else [])]
            if unused:
                raise OptionError(
                    f"--{unused[0].replace('_', '-')} is for a plan, and {images!r} is none; leave it out"
                )
            judged = _source(images, images_split, samples)
        known = measure(_source(reference, split), extractor, **options)
        found = measure(judged, extractor, **options)
    result = {**settings, "samples": found.count, "reference_images": known.count}
    result |= compare(found, known, wanted, neighbours=neighbours, subset_size=subset_size, seed=seed)
    if found.in_class is not None:
        result["in_class"] = found.in_class
    if known.in_class is not None:
        result["reference_in_class"] = known.in_class
    text = json.dumps(result, indent=2)
    click.echo(text)
    if out is not None:
        with atomic_file(out) as file:
            file.write(text.encode() + b"\n")


def _source(name: str, split: str, count: int | None = None) -> Source:
    if name.endswith(".plan"):
        raise OptionError(f"the reference is {name!r}, a plan; give real images, or sample it to an .npz first")
    return open_source(name, split, count)
