"""The classifier as an ONNX file: the same features, on any number of images, and no path of this machine in it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pysdk.evaluation.features import OnnxFeatures
from pysdk.export import feature_network
from pysdk.training.classifier import Classifier, classify, save


@pytest.mark.parametrize(("channels", "size"), [(3, 16), (1, 12)])
def test_lowered_classifier(tmp_path: Path, channels: int, size: int) -> None:
    torch.manual_seed(0)
    model = Classifier(channels, 5).eval()
    save(model, tmp_path)
    result = CliRunner().invoke(feature_network.main, [str(tmp_path), "--size", str(size)], catch_exceptions=False)
    assert "wrote" in result.output
    images = np.random.default_rng(0).integers(0, 256, (7, size, size, channels), np.uint8)
    extractor = OnnxFeatures(tmp_path, threads=1)
    for some in (images, images[:1]):
        found = extractor(some)
        assert isinstance(found, tuple)
        features, classes = classify(model, some.transpose(0, 3, 1, 2))
        np.testing.assert_allclose(found[0], features, atol=1e-5)
        assert np.array_equal(found[1].argmax(1), classes)
    assert str(Path(torch.__file__).parent).encode() not in (tmp_path / "features.onnx").read_bytes()
