"""The classifier that evaluation measures with: the shipped one is good, a new one learns, both load safely."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kit.places import CLASSIFIER, FASHION_MNIST
from safetensors.torch import save_file

from pysdk.datasets.dataset import Dataset
from pysdk.datasets.loading import load_dataset
from pysdk.errors import CheckpointError, DataError, OptionError
from pysdk.training import classifier
from pysdk.training.classifier import Classifier, classify

SUBSET = load_dataset(str(FASHION_MNIST))


def bright_and_dark(count: int = 64) -> Dataset:
    labels = np.arange(count) % 2
    noise = np.random.default_rng(0).integers(0, 60, (count, 3, 12, 12), np.uint8)
    return Dataset(noise + (150 * labels).astype(np.uint8)[:, None, None, None], labels.astype(np.int64))


def test_shipped_classifier_knows_the_classes() -> None:
    features, classes = classify(classifier.load(CLASSIFIER), SUBSET.images)
    assert SUBSET.labels is not None
    assert (classes == SUBSET.labels).mean() > 0.9
    assert features.shape == (1000, 64)
    assert features.dtype == np.float32
    assert (features.std(0) > 0.1).all()
    assert (CLASSIFIER / "model.safetensors").stat().st_size < 1_000_000


def test_batches_do_not_matter() -> None:
    model, images = classifier.load(CLASSIFIER), SUBSET.images[:50]
    together, alone = classify(model, images), classify(model, images, batch_size=7)
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-4, atol=1e-4)
    assert np.array_equal(together[1], alone[1])


def test_training_learns_and_is_repeatable(tmp_path: Path) -> None:
    data = bright_and_dark()
    model = classifier.train(data, 6, batch_size=16, progress=False)
    features, classes = classify(model, data.images)
    assert data.labels is not None
    assert (classes == data.labels).mean() > 0.9
    again = classifier.train(data, 6, batch_size=16, progress=False)
    assert np.array_equal(classify(again, data.images)[0], features)
    classifier.save(model, tmp_path / "new")
    loaded = classifier.load(tmp_path / "new")
    assert not loaded.training
    assert np.array_equal(classify(loaded, data.images)[0], features)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 12), (3, 17)])
def test_shapes(channels: int, size: int) -> None:
    features, logits = Classifier(channels, 7).eval()(torch.zeros(2, channels, size, size))
    assert (features.shape, logits.shape) == ((2, 64), (2, 7))


def test_bad_arguments_are_refused() -> None:
    data = bright_and_dark()
    with pytest.raises(OptionError, match="epochs is 0"):
        classifier.train(data, 0)
    with pytest.raises(OptionError, match="batch_size is 128"):
        classifier.train(data)
    with pytest.raises(DataError, match="needs labels"):
        classifier.train(Dataset(data.images), batch_size=16)
    with pytest.raises(DataError, match=r"takes \(N, 1, H, W\)"):
        classify(Classifier(1, 2).eval(), data.images)


def test_damaged_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no"):
        classifier.load(tmp_path)
    save_file({"head.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="belongs to another network"):
        classifier.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((CLASSIFIER / "model.safetensors").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        classifier.load(tmp_path)
