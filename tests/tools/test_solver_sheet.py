"""The sheet of solvers, drawn small: it has all that can draw, and a second run draws nothing again."""

import numpy as np
import pytest
from click.testing import CliRunner
from kit.places import CLASSIFIER, FASHION_MNIST
from kit.tiny_networks import multiplication, write_toy_plan
from PIL import Image

from pysdk.solvers import SOLVERS
from tools import solver_sheet

pytestmark = pytest.mark.slow

SHAPE = (1, 28, 28)


def test_sheet(tmp_path, monkeypatch):
    plan = write_toy_plan(tmp_path / "toy.plan", multiplication(0.5, shape=SHAPE), shape=SHAPE)
    data = FASHION_MNIST
    arguments = [str(plan), "--images", "4", "--calls", "3", "--calls", "7", "--data", str(data), "--per-cell", "2"]
    arguments += [word for name in ("ddim", "heun", "predictor_corrector") for word in ("--only", name)]
    arguments += ["--classifier", str(CLASSIFIER)]
    arguments += ["--picture", str(tmp_path / "docs/pictures/sheet.png"), "--page", str(tmp_path / "docs/sheet.md")]
    drawn = []
    sample = solver_sheet.Sampler.sample
    monkeypatch.setattr(
        solver_sheet.Sampler, "sample", lambda *args, **kwargs: drawn.append(kwargs) or sample(*args, **kwargs)
    )
    result = CliRunner().invoke(solver_sheet.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    page = (tmp_path / "docs/sheet.md").read_text()
    lines = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| ")]
    assert {line[0].strip().split(",")[0] for line in lines[1:]} == {"ddim", "heun", "predictor_corrector"}
    assert "![every solver at 3, 7 calls](pictures/sheet.png)" in page
    heun = next(line for line in lines if line[0].strip() == "heun")
    assert all(float(number.strip(" *")) > 0 for number in heun[1:])
    assert {(kwargs["solver"], kwargs["steps"]) for kwargs in drawn} >= {("heun", 2), ("heun", 4), ("ddim", 7)}
    assert np.asarray(Image.open(tmp_path / "docs/pictures/sheet.png")).std() > 0
    with solver_sheet.Sampler(plan) as sampler:
        assert {name for name, _ in solver_sheet.rows(sampler).values()} == set(SOLVERS) - {"reverse_ddim"}
    count = len(drawn)
    assert CliRunner().invoke(solver_sheet.main, arguments, catch_exceptions=False).exit_code == 0
    assert len(drawn) == count
    assert (tmp_path / "docs/sheet.md").read_text() == page
