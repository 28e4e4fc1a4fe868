"""How good the samples of a plan are, seen by a classifier: Frechet distance, and the share in the class asked for.

Run as `python -m pysdk.training.evaluate PLAN --samples 10000 --steps 50`. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pysdk.atomic import atomic_file
from pysdk.errors import DataError, OptionError
from pysdk.training.classifier import Classifier, classify
from pysdk.training.classifier import load as load_classifier
from pysdk.training.data import Dataset, npz
from pysdk.training.data import load as load_data
from pysdk.training.frechet import Moments, frechet_distance

SETTINGS = "settings.json"


def cycling_labels(start: int, count: int, num_classes: int) -> NDArray[np.int64]:
    """Labels of the images start .. start + count - 1: 0, 1, ..., K - 1, 0, 1, ..."""
    return np.arange(start, start + count, dtype=np.int64) % num_classes


def collect(
    draw: Callable[[int, int], NDArray[np.uint8]],
    count: int,
    folder: Path,
    settings: dict[str, Any],
    *,
    chunk: int = 500,
    progress: bool = True,
) -> NDArray[np.uint8]:
    """Samples 0 .. count - 1, drawn in chunks that are kept in a folder, so that no chunk is drawn twice.

    Args:
        draw: (start, n) -> images uint8 (n, H, W, C).
        count: images in all; may grow from call to call.
        folder: where the chunks are, created if there is none.
        settings: what the images depend on, JSON values; a folder belongs to one set of them.
        chunk: images in a file.
        progress: whether to show a progress bar.

    Returns:
        uint8 (count, C, H, W).

    Raises:
        OptionError: the folder holds samples of other settings.
        DataError: a chunk is damaged.
    """
    settings = {**settings, "chunk": chunk}
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SETTINGS).exists():
        with atomic_file(folder / SETTINGS) as file:
            file.write(json.dumps(settings, indent=2).encode())
    try:
        known = json.loads((folder / SETTINGS).read_bytes())
    except ValueError as error:
        raise DataError(f"{folder / SETTINGS} is damaged ({error}); remove {folder} to start again.") from error
    if known != json.loads(json.dumps(settings)):
        raise OptionError(f"{folder} holds samples drawn with {known}, not {settings}; choose another --work folder.")
    chunks = []
    with tqdm(total=count, unit="image", disable=not progress, dynamic_ncols=True) as bar:
        for start in range(0, count, chunk):
            path = folder / f"{start:08d}.npz"
            size = min(chunk, count - start)
            found = npz(path).images if path.exists() else np.empty((0, 1, 1, 1), np.uint8)
            if len(found) < size:  # not there, or the shorter last chunk of a smaller count
                images = draw(start, size)
                with atomic_file(path) as file:
                    np.savez_compressed(file, images=images)
                found = images.transpose(0, 3, 1, 2)
            chunks.append(found[:size])
            bar.update(size)
    return np.concatenate(chunks)


def class_shares(
    predicted: NDArray[np.int64], asked: NDArray[np.int64], names: tuple[str, ...]
) -> dict[str, float | dict[str, float]]:
    """The share of samples that the classifier puts in the class asked for: of all, and of each class that occurs."""
    right = predicted == asked
    each = {name: float(right[asked == label].mean()) for label, name in enumerate(names) if (asked == label).any()}
    return {"all": float(right.mean()), "each": each}


def real_distances(
    train: NDArray[np.floating], test: NDArray[np.floating], count: int, seed: int = 0
) -> dict[str, float]:
    """What the distance is between real images, for comparison.

    Args:
        train: features (N, D) of the training images.
        test: features (M, D) of the test images.
        count: images in the training subset, as many as there are samples.
        seed: of the random split and subset.

    Returns:
        "train_half_train_half": between two random halves; "train_subset_test": between `count` random training images
        (all, if there are fewer) and the test images: what perfect samples would get.
    """
    order = np.random.default_rng(seed).permutation(len(train))
    half = len(train) // 2
    return {
        "train_half_train_half": frechet_distance(Moments.of(train[order[:half]]), Moments.of(train[order[half:]])),
        "train_subset_test": frechet_distance(Moments.of(train[order[:count]]), Moments.of(test)),
    }


def report(
    samples: NDArray[np.uint8], asked: NDArray[np.int64] | None, train: Dataset, test: Dataset, classifier: Classifier
) -> dict[str, Any]:
    """Everything that is measured, as JSON values.

    Args:
        samples: uint8 (N, C, H, W).
        asked: the classes they were drawn for, int64 (N,), or None.
        train, test: the two splits of the real images.
        classifier: gives the features and the classes.
    """
    features, predicted = classify(classifier, samples)
    test_features, test_classes = classify(classifier, test.images)
    result: dict[str, Any] = {
        "samples": len(samples),
        "frechet_distance": frechet_distance(Moments.of(features), Moments.of(test_features)),
        "real": real_distances(classify(classifier, train.images)[0], test_features, len(samples)),
    }
    names = test.class_names or tuple(str(label) for label in range(test.num_classes or 0))
    if asked is not None:
        result["in_class"] = class_shares(predicted, asked, names)
    if test.labels is not None:
        result["classifier_accuracy"] = class_shares(test_classes, test.labels, names)
    return result


@click.command()
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--samples", type=click.IntRange(2), default=10_000, show_default=True)
@click.option("--solver", help="Default: that of the plan.")
@click.option("--steps", type=click.IntRange(1), help="Default: those of the plan.")
@click.option("--guidance-scale", type=float, help="Default: that of the plan.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--data", default="fashion-mnist", show_default=True, help="The real images.")
@click.option("--classifier", type=click.Path(path_type=Path), default="models/fashion-mnist-classifier")
@click.option("--work", type=click.Path(path_type=Path), help="Folder of the samples. Default: PLAN.samples/SETTINGS.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the result, which is also printed.")
def main(
    plan: Path,
    samples: int,
    solver: str | None,
    steps: int | None,
    guidance_scale: float | None,
    seed: int,
    data: str,
    classifier: Path,
    work: Path | None,
    out: Path | None,
) -> None:
    """Measure the samples of PLAN against the real test images."""
    from pysdk import Sampler

    model, train, test = load_classifier(classifier), load_data(data), load_data(data, "test")
    sampler = Sampler(plan)
    classes = sampler.plan.manifest.model.num_classes
    settings = {
        "plan": hashlib.sha256(plan.read_bytes()).hexdigest(),
        "solver": solver,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "seed": seed,
    }
    name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]

    def draw(start: int, count: int) -> NDArray[np.uint8]:
        labels = None if classes is None else cycling_labels(start, count, classes)
        images = sampler.sample(
            n=count,
            seed=seed,
            start=start,
            steps=steps,
            solver=solver,
            labels=labels,
            guidance_scale=guidance_scale,
            output="uint8",
            progress=False,
        )
        return np.asarray(images)

    images = collect(draw, samples, work or plan.with_name(f"{plan.name}.samples") / name, settings)
    asked = None if classes is None else cycling_labels(0, samples, classes)
    text = json.dumps({**settings, **report(images, asked, train, test, model)}, indent=2)
    click.echo(text)
    if out is not None:
        with atomic_file(out) as file:
            file.write(text.encode() + b"\n")


if __name__ == "__main__":
    main()
