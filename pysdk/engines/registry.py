"""The engines there are, by kind: a new one gets its module in this folder and its name in `KINDS`."""

from __future__ import annotations

import importlib
from typing import Any, cast

from pysdk.engines.contract import EngineModule
from pysdk.errors import EngineError
from pysdk.machine.memory import Budget
from pysdk.plan.manifest import ClassifierInfo, EngineInfo
from pysdk.plan.reader import Plan

KINDS = ("native", "onnxruntime", "tensorrt")
"""The engines this pysdk knows; each is imported when it is first asked for."""


def module(kind: str) -> EngineModule:
    """The engine's module. EngineError if there is none of that kind; a plan cannot name any other file."""
    if kind not in KINDS:
        raise EngineError(f"there is no engine {kind!r}; this pysdk has {', '.join(KINDS)}")
    return cast(EngineModule, importlib.import_module(f"pysdk.engines.{kind}"))


def home(kind: str) -> str | None:
    """Where such an engine runs: "cpu" or "cuda"; None if this pysdk does not know it."""
    return getattr(module(kind), "DEVICE", "cpu") if kind in KINDS else None


def of_classifier(classifier: ClassifierInfo, batch_size: int = 1) -> EngineInfo:
    """The engine that runs a plan's classifier."""
    return EngineInfo(kind="onnxruntime", member=classifier.member, precision="float32", batch_size=batch_size)


def load(plan: Plan, info: EngineInfo, threads: int, budget: Budget | None = None, *, trust: bool = False) -> Any:
    """An engine of a plan with the files it needs; `threads` is a device's number for one that runs there.

    `budget`, of an engine on the CPU, is what its memory is taken from; `trust` lets it run what could compute
    for ever. Raises EngineError, MemoryLimitError, PlanError.
    """
    limits: dict[str, Any] = {"budget": budget} if budget is not None else {}
    if trust and home(info.kind) == "cpu":
        limits["trust"] = True
    loader, member = module(info.kind), plan.member(info.member)
    with plan.verifying(info.data) as data:
        return loader.load(plan.manifest.model, info, member, threads, *data, **limits)
