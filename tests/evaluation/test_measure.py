"""The shipped feature network, what is kept of a stream, and that good images are told from bad ones."""

from pathlib import Path

import numpy as np
import pytest
from kit.places import CLASSIFIER, FASHION_MNIST
from numpy.typing import NDArray
from onnx import TensorProto, helper
from scipy.stats import chisquare

from pysdk.errors import DataError, EngineError, NumericalError, OptionError
from pysdk.evaluation.features import OnnxFeatures
from pysdk.evaluation.measure import Reservoir, class_shares, compare, measure
from pysdk.evaluation.sources import Source, open_source
from pysdk.training import classifier

SUBSET = str(FASHION_MNIST)


def source(images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None) -> Source:
    def batches(size: int):  # type: ignore[no-untyped-def]
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            yield images[part], None if labels is None else labels[part]

    return Source("test", len(images), batches)


def flat(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The first pixels as features."""
    return images.reshape(len(images), -1)[:, :3].astype(np.float64)


@pytest.fixture(scope="module")
def subset() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = next(open_source(SUBSET).batches(1000))
    assert labels is not None
    order = np.random.default_rng(0).permutation(1000)
    return images[order], labels[order]


def test_shipped_network_is_the_classifier(subset: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    images = subset[0][:100]
    found = OnnxFeatures(CLASSIFIER, threads=1)(images)
    assert isinstance(found, tuple)
    features, classes = classifier.classify(classifier.load(CLASSIFIER), images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found[0], features, rtol=1e-4, atol=1e-4)
    assert np.array_equal(found[1].argmax(1), classes)


@pytest.mark.slow
def test_good_images_are_told_from_bad_ones(subset: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    images, labels = subset
    extractor = OnnxFeatures(CLASSIFIER, threads=1)
    reference = measure(source(images[:400], labels[:400]), extractor, progress=False)
    good = measure(source(images[400:800], labels[400:800]), extractor, progress=False)
    noisy = images[400:800] // 2 + np.random.default_rng(1).integers(0, 128, (400, 28, 28, 1), np.uint8)
    bad = measure(source(noisy, (labels[400:800] + 1) % 10), extractor, progress=False)
    better, worse = compare(good, reference), compare(bad, reference)
    assert worse["frechet_distance"] > 5 * better["frechet_distance"]
    assert worse["kernel_distance"]["mean"] > 5 * abs(better["kernel_distance"]["mean"])
    assert worse["recall"] < 0.1
    assert better["recall"] > 0.5
    assert good.in_class is not None
    assert good.in_class["all"] > 0.85
    assert bad.in_class is not None
    assert bad.in_class["all"] < 0.5
    assert measure(source(images[:9]), extractor, progress=False).in_class is None
    same = compare(good, good, ["frechet", "precision-recall"])
    assert same["frechet_distance"] < 1e-6
    assert (same["precision"], same["recall"]) == (1, 1)
    assert same.keys() == {"frechet_distance", "kept_features", "precision", "recall", "neighbours"}


def test_any_batch_size_gives_the_same() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1), np.uint8)
    whole = measure(source(images), flat, progress=False)
    parts = measure(source(images), flat, batch_size=7, progress=False)
    np.testing.assert_allclose(parts.moments.moments().covariance, whole.moments.moments().covariance, rtol=1e-12)
    assert whole.kept is not None
    assert parts.kept is not None
    assert np.array_equal(parts.kept, whole.kept)
    assert measure(source(images), flat, keep=0, progress=False).kept is None


def test_reservoir_takes_everyone_equally_often() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        reservoir = Reservoir(5, seed)
        for part in np.split(np.arange(20.0)[:, None], [3, 4, 11]):
            reservoir.add(part)
        kept = reservoir.features().ravel().astype(int)
        assert len(set(kept)) == 5
        counts[kept] += 1
    assert chisquare(counts).pvalue > 1e-3
    few = Reservoir(5)
    few.add(np.ones((3, 2)))
    assert few.features().shape == (3, 2)


def test_shares_of_the_classes() -> None:
    for outside in (-1, 3):
        with pytest.raises(DataError, match="but there are 3 class names"):
            class_shares(np.array([0, 0]), np.array([0, outside]), ("a", "b", "c"))
    shares = class_shares(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]), ("a", "b", "c"))
    assert shares == {"all": 0.75, "each": {"a": 1.0, "b": 0.5}}


def test_bad_requests_are_refused() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1), np.uint8)
    kept, dropped = (measure(source(images), flat, keep=keep, progress=False) for keep in (10, 0))
    with pytest.raises(OptionError, match="no metric 'fid'"):
        compare(kept, kept, ["fid"])
    with pytest.raises(OptionError, match="no features were kept"):
        compare(kept, dropped, ["kernel"])
    assert compare(dropped, kept, ["frechet"]).keys() == {"frechet_distance"}
    with pytest.raises(DataError, match=r"features of shape \(10, 4, 4, 1\)"):
        measure(source(images), lambda x: x.astype(np.float32), progress=False)
    with pytest.raises(NumericalError, match="NaN"):
        measure(source(images), lambda x: np.full((len(x), 2), np.nan), progress=False)


def network(path: Path, kind: int, outputs: list[str], rank: int = 4) -> Path:
    """An ONNX file that casts to float, adds 0 and flattens, once per output."""
    shape = ["n", 1, 2, 2][:rank]
    nodes = [helper.make_node("Cast", ["in"], ["cast"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Flatten", ["cast"], [name], axis=1) for name in outputs]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("in", kind, shape)], made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_what_a_network_is_given(tmp_path: Path) -> None:
    images = np.array([0, 51, 204, 255], np.uint8).reshape(1, 2, 2, 1)
    levels = OnnxFeatures(network(tmp_path / "a.onnx", TensorProto.UINT8, ["anything"]))(images)
    assert np.array_equal(levels, [[0, 51, 204, 255]])
    scaled = OnnxFeatures(network(tmp_path / "b.onnx", TensorProto.FLOAT, ["features", "other"]))(images)
    np.testing.assert_allclose(scaled, [[-1, -0.6, 0.6, 1]], rtol=1e-6)
    both = OnnxFeatures(network(tmp_path / "c.onnx", TensorProto.FLOAT, ["logits", "features"]))(images)
    assert isinstance(both, tuple)


def test_bad_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no feature network .*features.onnx"):
        OnnxFeatures(tmp_path)
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(EngineError, match=r"cannot load .*bad.onnx"):
        OnnxFeatures(tmp_path / "bad.onnx")
    with pytest.raises(DataError, match="expected one, uint8 or float32"):
        OnnxFeatures(network(tmp_path / "a.onnx", TensorProto.INT64, ["x"]))
    with pytest.raises(DataError, match="expected one, uint8 or float32"):
        OnnxFeatures(network(tmp_path / "a.onnx", TensorProto.FLOAT, ["x"], rank=2))
    with pytest.raises(DataError, match="expected one, or one called 'features'"):
        OnnxFeatures(network(tmp_path / "a.onnx", TensorProto.FLOAT, ["x", "y"]))
    extractor = OnnxFeatures(network(tmp_path / "a.onnx", TensorProto.FLOAT, ["x"]))
    with pytest.raises(DataError, match=r"takes \(1, 2, 2\)"):
        extractor(np.zeros((1, 3, 2, 1), np.uint8))
    with pytest.raises(DataError, match=r"takes \(1, 2, 2\)"):
        extractor(np.zeros((1, 2, 2, 3), np.uint8))
