"""The rate-distortion curve: what it is made of, and how it is written."""

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from kit.tiny_networks import TOY_SHAPE, write_toy_plan
from PIL import Image

from pysdk import Sampler
from pysdk.cli import compression, likelihood
from pysdk.errors import OptionError, OutputError
from pysdk.likelihood.compression import Curve, compression_curve, save_curve

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 1), np.uint8)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_plan(tmp_path_factory.mktemp("toy") / "toy.plan", shape=TOY_SHAPE)


@pytest.fixture(scope="module")
def curve(plan: Path) -> Curve:
    with Sampler(plan, threads=1) as sampler:
        return compression_curve(sampler.likelihood(PIXELS))


def test_curve_is_made_of_the_bound(plan: Path) -> None:
    with Sampler(plan, threads=1) as sampler:
        found = sampler.likelihood(PIXELS)
        curve = compression_curve(found)
        subset = sampler.likelihood(PIXELS, terms=5)
    assert curve.timesteps.tolist() == [*range(9, -1, -1), -1]
    for row, t in enumerate(curve.timesteps):
        sent = found.prior.mean() + sum(found.terms[:, i].mean() for i, s in enumerate(found.timesteps) if s > t)
        assert curve.rate[row] == pytest.approx(sent)
    assert curve.rate[-1] == pytest.approx(found.bits_per_dim)
    assert (np.diff(curve.rate) > 0).all()
    np.testing.assert_allclose(curve.distortion[:-1] ** 2, found.squared_error.mean(0))
    assert curve.distortion[-1] == 0
    with pytest.raises(OptionError, match="has 5 of its 10 terms"):
        compression_curve(subset)


def test_distortion_falls_for_a_denoiser(plan: Path, curve: Curve) -> None:
    """At t = 0 an estimate is near the image, at T - 1 it is a guess; the scale is that of pixels."""
    assert curve.distortion[0] > 5 * curve.distortion[-2]
    assert 20 < curve.distortion[0] < 255


def test_files(curve: Curve, tmp_path: Path) -> None:
    save_curve(curve, tmp_path / "c.csv")
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["timestep"]) for row in rows] == curve.timesteps.tolist()
    assert [float(row["rate"]) for row in rows] == curve.rate.tolist()
    assert [float(row["distortion"]) for row in rows] == curve.distortion.tolist()
    save_curve(curve, tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as arrays:
        assert all(np.array_equal(arrays[name], getattr(curve, name)) for name in ("timesteps", "rate", "distortion"))
    save_curve(curve, tmp_path / "c.png", "title")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 800
        assert len(np.unique(np.asarray(picture))) > 10
    with pytest.raises(OptionError, match=r"cannot be saved as '.txt'"):
        save_curve(curve, tmp_path / "c.txt")
    with pytest.raises(OutputError):
        save_curve(curve, tmp_path / "missing" / "c.csv")


def test_command(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "images.npz", PIXELS)
    monkeypatch.chdir(tmp_path)
    arguments = [str(plan), "--data", "images.npz", "-n", "4", "--steps", "5", "--threads", "1"]
    result = CliRunner().invoke(compression.command, arguments, catch_exceptions=False)
    assert "wrote compression.csv" in result.output
    assert (tmp_path / "compression.png").stat().st_size > 5000
    lines = (tmp_path / "compression.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["timestep", "8", "6", "4", "2", "0", "-1"]
    with pytest.raises(OptionError, match=r"saved as '.jpg'"):
        CliRunner().invoke(compression.command, [*arguments, "-o", "a.jpg"], catch_exceptions=False)


def test_likelihood_command(plan: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", images=PIXELS)
    arguments = [str(plan), "--data", str(tmp_path / "images.npz"), "-n", "6", "--terms", "4", "--threads", "1"]
    result = CliRunner().invoke(
        likelihood.command, [*arguments, "--out", str(tmp_path / "out.json")], catch_exceptions=False
    )
    with Sampler(plan, threads=1) as sampler:
        assert result.output.strip() == sampler.likelihood(PIXELS, terms=4).summary()
    assert '"bits_per_dim"' in (tmp_path / "out.json").read_text()


def test_labels_come_from_the_data(tmp_path: Path) -> None:
    plan = write_toy_plan(tmp_path / "toy.plan", num_classes=3)
    np.savez(tmp_path / "labelled.npz", images=PIXELS, labels=np.arange(6) % 3)
    np.savez(tmp_path / "plain.npz", images=PIXELS)

    def run(name: str, *more: str) -> str:
        arguments = [str(plan), "--data", str(tmp_path / name), "-n", "6", "--threads", "1", *more]
        return CliRunner().invoke(likelihood.command, arguments, catch_exceptions=False).output

    assert run("labelled.npz") != run("labelled.npz", "--label", "1") == run("plain.npz", "--label", "1")
    with pytest.raises(OptionError, match="has no labels, but the plan's model has classes; give --label"):
        run("plain.npz")
