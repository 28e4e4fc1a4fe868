"""`pysdk evaluate` from end to end on small sets."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from kit.places import CLASSIFIER, FASHION_MNIST

from pysdk.cli.evaluate import command
from pysdk.errors import OptionError, PysdkError
from pysdk.evaluation.sources import open_source

SHIPPED, SUBSET = str(CLASSIFIER), str(FASHION_MNIST)


def evaluate(*arguments: str) -> dict[str, object]:
    ending = ["--reference", SUBSET, "--features", SHIPPED, "--threads", "1"]
    result = CliRunner().invoke(command, [*arguments, *ending], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_an_archive_against_another(tmp_path: Path) -> None:
    images, _ = next(open_source(SUBSET).batches(200))
    np.savez(tmp_path / "some.npz", images)
    found = evaluate(str(tmp_path / "some.npz"), "--subset-size", "100", "--out", str(tmp_path / "result.json"))
    assert json.loads((tmp_path / "result.json").read_bytes()) == found
    assert (found["samples"], found["reference_images"]) == (200, 1000)
    assert found["precision"] == 1  # they are in the reference
    assert found["kernel_distance"]["subset_size"] == 100  # type: ignore[index]
    assert "in_class" not in found
    assert found["reference_in_class"]["all"] > 0.85  # type: ignore[index]
    only = evaluate(str(tmp_path / "some.npz"), "--metrics", "frechet", "-n", "150")
    assert only["samples"] == 150
    assert "precision" not in only


def test_a_plan_is_sampled(garments_plan: Path, tmp_path: Path) -> None:
    options = ["-n", "12", "--steps", "2", "--solver", "ddim", "--seed", "3", "--metrics", "frechet"]
    found = evaluate(str(garments_plan), *options)
    assert found["samples"] == 12
    assert (found["solver"], found["steps"], found["seed"]) == ("ddim", 2, 3)
    assert 0 <= found["in_class"]["all"] <= 1  # type: ignore[index]
    kept = evaluate(str(garments_plan), *options, "--work", str(tmp_path / "work"))
    assert kept == found
    assert (tmp_path / "work" / "00000000.npz").exists()


def test_options_that_do_not_apply_are_refused(garments_plan: Path) -> None:
    cases = [
        ([SUBSET, "--steps", "5"], "--steps is for a plan"),
        ([SUBSET, "--guidance-scale", "2"], "--guidance-scale is for a plan"),
        ([SUBSET, "--work", "x"], "--work is for a plan"),
        ([SUBSET, "--metrics", "fid"], "no metric 'fid'"),
        ([SUBSET, "--reference", str(garments_plan)], "a plan; give real images"),
    ]
    for arguments, message in cases:
        line = ["--features", SHIPPED, "--reference", SUBSET, *arguments]
        with pytest.raises(OptionError, match=message):
            CliRunner().invoke(command, line, catch_exceptions=False)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("missing.plan", (), "there is no plan"),
        ("missing.npz", (), "There is no file"),
        (None, ("-n", "0"), "the number of images is 0"),
        (None, ("--solver", "magic"), "solver is 'magic'"),
        (None, ("--steps", "0"), "steps is 0"),
        (None, ("--out", "missing/a.json"), "there is no folder"),
    ],
)
def test_refused_before_the_reference_is_gone_through(
    garments_plan: Path, monkeypatch: pytest.MonkeyPatch, images: str | None, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr("pysdk.cli.evaluate.measure", lambda *_, **__: pytest.fail("measured before the check"))
    with pytest.raises(PysdkError, match=message):
        evaluate(images or str(garments_plan), *options)


def test_torch_is_not_needed(tmp_path: Path) -> None:
    import scipy  # noqa: F401  # which is

    code = f"""
import sys
sys.modules["torch"] = None
from pysdk.cli.commands import main
sys.argv = ["pysdk", "evaluate", {SUBSET!r}, "--reference", {SUBSET!r}, "--features", {SHIPPED!r}, "-n", "50"]
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["samples"] == 50
