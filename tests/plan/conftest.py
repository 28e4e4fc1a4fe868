"""A small plan on disk."""

from pathlib import Path

import pytest
from kit.plan_files import MANIFEST, MEMBERS

from pysdk.plan.writer import write_plan


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_plan(tmp_path / "a.plan", MANIFEST, MEMBERS)
    return tmp_path / "a.plan"
