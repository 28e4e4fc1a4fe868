"""The engines there are, by kind: a new one gets its module in this folder and its name in `KINDS`."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import cast

from pysdk.engines.contract import DeviceEngine, Engine, EngineOnCpu, EngineOnDevice
from pysdk.errors import EngineError
from pysdk.machine.memory import Budget
from pysdk.plan.manifest import ClassifierInfo, EngineInfo
from pysdk.plan.reader import Plan

KINDS = ("native", "onnxruntime", "tensorrt")
"""The engines this pysdk knows; each is imported when it is first asked for."""


def home(kind: str) -> str | None:
    """Where such an engine runs: "cpu" or "cuda"; None if this pysdk does not know it."""
    return getattr(_module(kind), "DEVICE", "cpu") if kind in KINDS else None


def of_classifier(classifier: ClassifierInfo, batch_size: int = 1) -> EngineInfo:
    """The engine that runs a plan's classifier."""
    return EngineInfo(kind="onnxruntime", member=classifier.member, precision="float32", batch_size=batch_size)


def on_cpu(kind: str) -> EngineOnCpu:
    """The module of an engine on the CPU. EngineError if there is none of that kind."""
    return cast(EngineOnCpu, _module(kind, "cpu"))


def on_device(kind: str) -> EngineOnDevice:
    """The module of an engine on CUDA devices. EngineError if there is none of that kind."""
    return cast(EngineOnDevice, _module(kind, "cuda"))


def load(plan: Plan, info: EngineInfo, threads: int, budget: Budget | None = None, *, trust: bool = False) -> Engine:
    """An engine of a plan on the CPU, with the files it needs.

    `budget` is what its memory is taken from; `trust` lets it run what could compute for ever. Raises EngineError,
    MemoryLimitError, PlanError.
    """
    engine, member = on_cpu(info.kind), plan.member(info.member)
    with plan.verifying(info.data) as data:
        return engine.load(plan.manifest.model, info, member, threads, *data, budget=budget, trust=trust)


def load_on_device(plan: Plan, info: EngineInfo, device: int) -> DeviceEngine:
    """An engine of a plan on the device of this number, which is the current one. Raises EngineError, PlanError."""
    engine, member = on_device(info.kind), plan.member(info.member)
    with plan.verifying(info.data) as data:
        return engine.load(plan.manifest.model, info, member, device, *data)


def _module(kind: str, where: str | None = None) -> ModuleType:
    """The engine's module; a plan can name no other file. EngineError if there is none, or it is not for `where`."""
    if kind not in KINDS:
        raise EngineError(f"there is no engine {kind!r}; this pysdk has {', '.join(KINDS)}")
    found = importlib.import_module(f"pysdk.engines.{kind}")
    runs_on = getattr(found, "DEVICE", "cpu")
    if where not in (None, runs_on):
        raise EngineError(f"engine {kind!r} runs on {runs_on!r}, not on {where!r}; choose another for this device")
    return found
