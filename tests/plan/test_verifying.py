"""Members that are read while their checksums are verified."""

from pathlib import Path

import numpy as np
import pytest
from kit.plan_files import MANIFEST, MEMBERS

from pysdk.errors import EngineError, OptionError, PlanError
from pysdk.plan.reader import Plan
from pysdk.plan.writer import write_plan

SMAPS = Path("/proc/self/smaps")


def test_views_are_those_of_member(path: Path) -> None:
    with Plan.open(path) as plan, plan.verifying(sorted(MEMBERS)) as views:
        assert [bytes(view) for view in views] == [MEMBERS[name] for name in sorted(MEMBERS)]
        assert all(view.readonly for view in views)
    assert [bytes(view) for view in views] == [MEMBERS[name] for name in sorted(MEMBERS)]  # they outlive the plan


@pytest.mark.parametrize("complaint", [None, EngineError("these weights are odd")])
def test_damage_is_what_is_reported(path: Path, complaint: Exception | None) -> None:
    path.write_bytes(path.read_bytes().replace(b"graphgraph", b"graphGraph", 1))
    seen = []

    def read() -> None:
        with Plan.open(path) as plan, plan.verifying(["cpu.weights", "network.onnx"]) as views:
            seen.extend(bytes(view) for view in views)
            if complaint is not None:
                raise complaint

    with pytest.raises(PlanError, match=r"'network.onnx' has SHA-256 .*the manifest says"):
        read()
    assert seen == [MEMBERS["cpu.weights"], MEMBERS["network.onnx"].replace(b"graphgraph", b"graphGraph", 1)]


def test_an_error_of_the_body_comes_through(path: Path) -> None:
    with Plan.open(path) as plan, pytest.raises(EngineError, match="odd"), plan.verifying(["network.onnx"]):
        raise EngineError("these weights are odd")


def test_unknown_member_and_closed_plan(path: Path) -> None:
    plan = Plan.open(path)
    with pytest.raises(OptionError, match=r"has no 'gpu.engine'"), plan.verifying(["gpu.engine"]):
        pass
    plan.close()
    with pytest.raises(PlanError, match="is closed"), plan.verifying(["network.onnx"]):
        pass


@pytest.mark.skipif(not SMAPS.is_file(), reason="resident memory is read from Linux's /proc")
def test_memory_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "large.plan"
    weights = np.random.default_rng(0).bytes(16 << 20)
    write_plan(path, MANIFEST, {**MEMBERS, "cpu.weights": weights})

    def resident() -> int:
        """Bytes of the plan's file that are in this process's memory."""
        lines = iter(SMAPS.read_text().splitlines())
        return sum(1024 * int(next(x for x in lines if x.startswith("Rss:")).split()[1]) for line in lines
                   if line.endswith(str(path)))  # fmt: skip

    with Plan.open(path) as plan:
        with plan.verifying(["cpu.weights"]) as (view,):
            assert bytes(view) == weights
        assert resident() < 1 << 20
        assert bytes(view) == weights
        assert resident() > 15 << 20
