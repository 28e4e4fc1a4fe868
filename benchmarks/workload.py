"""What is benchmarked: one plan, and the checkpoint it was built from for the peers that need torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk import Plan, StepTable, _native
from pysdk.diffusion.schedule import Schedule
from pysdk.engines import choice, registry
from pysdk.engines.contract import Engine
from pysdk.plan.manifest import ModelInfo
from pysdk.request.solver_table import default_clip
from pysdk.solvers import make_table

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "models" / "fashion-mnist"
PLAN = ROOT / "engine.plan"
BUILT = ROOT / "build" / "benchmarks"
"""What benchmarks make and keep."""


def find_plan(plan: Path | None, checkpoint: Path) -> Path:
    """The plan asked for, else engine.plan, else one built from the checkpoint and kept in the build folder."""
    if plan is not None or PLAN.is_file():
        return plan or PLAN
    weights = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    built = BUILT / f"{weights[:16]}.plan"
    if not built.is_file():
        from pysdk.export.build import build

        built.parent.mkdir(parents=True, exist_ok=True)
        build(checkpoint, built)
    return built


@dataclass(frozen=True)
class Workload:
    """A plan opened with its engine.

    Attributes:
        path: the plan's.
        checkpoint: folder with the same weights for torch.
        plan: the plan.
        kind: which engine was chosen.
        engine: that engine, loaded with `threads`.
        threads: for every engine, chain and peer.
    """

    path: Path
    checkpoint: Path
    plan: Plan
    kind: str
    engine: Engine
    threads: int

    @classmethod
    def open(cls, path: Path, checkpoint: Path, threads: int) -> Workload:
        """Open a plan and load the first of its engines that runs here."""
        plan = Plan.open(path)
        info, _ = choice.choose(plan)
        engine = registry.load(plan, info, threads)
        return cls(path, checkpoint, plan, info.kind, engine, threads)

    @property
    def model(self) -> ModelInfo:
        """Shapes and classes."""
        return self.plan.manifest.model

    @property
    def schedule(self) -> Schedule:
        """The forward process."""
        return Schedule.from_betas(self.plan.manifest.schedule.betas or ())

    def labels(self, n: int) -> NDArray[np.int64]:
        """The labels `Sampler.sample(n)` uses by default; zeros without classes."""
        return np.arange(n, dtype=np.int64) % (self.model.num_classes or 1)

    def table(self, solver: str, steps: int | None) -> StepTable:
        """The step table of the plan's own default for a solver."""
        options: dict[str, Any] = {"variance": self.model.variance_type} if solver == "ddpm" else {}
        clip = default_clip(self.plan.manifest.defaults)
        prediction = self.model.prediction_type
        return make_table(solver, self.schedule, steps=steps, prediction_type=prediction, clip=clip, **options)

    def chain(self, n: int) -> _native.Chain:
        """An empty chain of n images."""
        model = self.model
        return _native.Chain(batch=n, shape=model.shape, out_channels=model.out_channels, threads=self.threads)

    def begin(
        self,
        chain: _native.Chain,
        table: StepTable,
        n: int,
        *,
        initial: NDArray[np.float32] | None = None,
        noise: Callable[[int], NDArray[np.float32]] | None = None,
    ) -> None:
        """Start a chain on images 0..n-1 of seed 0."""
        chain.begin(
            table.native,
            seeds=np.zeros(n, np.uint64),
            images=np.arange(n, dtype=np.uint64),
            labels=None if self.model.num_classes is None else self.labels(n),
            initial=initial,
            noise=noise,
        )
