"""From images to numbers: their features are summed up in one pass, then two sets are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import DataError, OptionError
from pysdk.evaluation.features import Extractor
from pysdk.evaluation.frechet import RunningMoments, frechet_distance
from pysdk.evaluation.kernel import kernel_distance
from pysdk.evaluation.manifold import NEIGHBOURS, precision_recall
from pysdk.evaluation.sources import Source

METRICS = ("frechet", "kernel", "precision-recall")
KEPT = 10_000
"""Features kept from a set for the metrics that need them one by one."""


class Reservoir:
    """A random choice of `size` features from a stream, all equally likely (Vitter's algorithm R)."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size, self._seen = size, 0
        self._rng = np.random.default_rng(seed)
        self._rows: list[NDArray[np.floating[Any]]] = []

    def add(self, features: NDArray[np.floating[Any]]) -> None:
        """Offer features (n, D), one by one."""
        for row in features:
            if self._seen < self._size:
                self._rows.append(row.copy())
            elif (place := int(self._rng.integers(self._seen + 1))) < self._size:
                self._rows[place] = row.copy()
            self._seen += 1

    def features(self) -> NDArray[np.floating[Any]]:
        """What was chosen, (min(seen, size), D)."""
        return np.stack(self._rows)


@dataclass(frozen=True)
class Measured:
    """What remains of a set of images.

    Attributes:
        count: images.
        moments: mean and covariance of all their features.
        kept: all features or a random choice of them, (n, D); None if they were not needed.
        in_class: the share of images that the extractor puts in the class of their label, among all and for each
            class, if it knows classes and they have labels.
    """

    count: int
    moments: RunningMoments
    kept: NDArray[np.floating[Any]] | None = None
    in_class: dict[str, Any] | None = None


def measure(
    source: Source,
    extractor: Extractor,
    *,
    keep: int = KEPT,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = True,
) -> Measured:
    """Go through the images once.

    Args:
        source: the images.
        extractor: gives their features.
        keep: features to keep, chosen at random if there are more; 0 for none.
        batch_size: images at a time.
        seed: makes the choice.
        progress: whether to show a progress bar.

    Raises:
        OptionError: `keep` is negative.
        DataError: images or features are of a wrong shape, or labels have no class name.
        NumericalError: a feature is NaN or infinite.
    """
    from tqdm.auto import tqdm  # a quarter of the import time of the SDK

    if keep < 0:
        raise OptionError(f"keep is {keep}, expected 0 or more features")
    moments, reservoir = RunningMoments(), Reservoir(keep, seed)
    predicted: list[NDArray[np.int64]] = []
    asked: list[NDArray[np.int64]] = []
    with tqdm(total=source.count, desc=source.name, unit="image", disable=not progress, delay=1) as bar:
        for images, labels in source.batches(batch_size):
            answer = extractor(images)
            features, scores = answer if isinstance(answer, tuple) else (answer, None)
            features = np.asarray(features)
            if features.ndim != 2 or len(features) != len(images):
                raise DataError(f"The extractor gave features of shape {features.shape}; expected ({len(images)}, D).")
            moments.add(features)
            if keep:
                reservoir.add(features)
            if scores is not None and labels is not None:
                predicted.append(np.asarray(scores).argmax(1))
                asked.append(labels)
            bar.update(len(images))
    shares = None
    if asked:
        shares = class_shares(np.concatenate(predicted), np.concatenate(asked), source.class_names)
    return Measured(moments.count, moments, reservoir.features() if keep else None, shares)


def class_shares(
    predicted: NDArray[np.int64], asked: NDArray[np.int64], names: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """The share of images put in the right class: among all, and for each class that occurs."""
    right = predicted == asked
    labels = np.unique(asked).tolist()
    if names is not None and not 0 <= labels[0] <= labels[-1] < len(names):
        raise DataError(f"Labels go from {labels[0]} to {labels[-1]}, but there are {len(names)} class names.")
    each = {names[label] if names else str(label): float(right[asked == label].mean()) for label in labels}
    return {"all": float(right.mean()), "each": each}


def check_metrics(metrics: Sequence[str]) -> None:
    """OptionError unless all of them are of `METRICS`."""
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise OptionError(f"there is no metric {unknown[0]!r}, expected some of {', '.join(METRICS)}")


def compare(
    images: Measured,
    reference: Measured,
    metrics: Sequence[str] = METRICS,
    *,
    neighbours: int = NEIGHBOURS,
    subset_size: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The metrics of two sets as JSON values.

    Args:
        images: the set to judge.
        reference: the set to judge it by.
        metrics: some of `METRICS`; "kernel" and "precision-recall" use the features kept.
        neighbours: k for precision and recall.
        subset_size: features in a subset for the kernel distance.
        seed: draws the subsets.

    Raises:
        OptionError: a metric is unknown, or its option does not fit.
        DataError: the sets are too small, or of different features.
    """
    check_metrics(metrics)
    result: dict[str, Any] = {}
    if "frechet" in metrics:
        result["frechet_distance"] = frechet_distance(images.moments.moments(), reference.moments.moments())
    if set(metrics) == {"frechet"}:
        return result
    if images.kept is None or reference.kept is None:
        raise OptionError("no features were kept, which every metric but 'frechet' needs; measure with keep > 0")
    result["kept_features"] = {"images": len(images.kept), "reference": len(reference.kept)}
    if "kernel" in metrics:
        found = kernel_distance(images.kept, reference.kept, subset_size=subset_size, seed=seed)
        result["kernel_distance"] = {
            "mean": found.mean,
            "deviation": found.deviation,
            "subsets": found.subsets,
            "subset_size": found.subset_size,
        }
    if "precision-recall" in metrics:
        precision, recall = precision_recall(reference.kept, images.kept, neighbours=neighbours)
        result |= {"precision": precision, "recall": recall, "neighbours": neighbours}
    return result
