"""Which engine of a plan is taken, and why the others are not."""

from __future__ import annotations

import shlex

from pysdk.engines import registry
from pysdk.errors import EngineError
from pysdk.plan.manifest import EngineInfo
from pysdk.plan.reader import Plan


def choose(plan: Plan, kind: str | None = None, *, device: int | None = None) -> tuple[EngineInfo, dict[str, str]]:
    """The first engine of a plan that runs on this machine, and why each one before it does not.

    Args:
        plan: an open plan; its engines are listed best first.
        kind: take this engine or none.
        device: number of the CUDA device to run on; None for the CPU.

    Raises:
        EngineError: no engine of the plan runs there; the message says why for each.
    """
    skipped: dict[str, str] = {}
    for info in plan.manifest.engines:
        if kind is not None and info.kind != kind:
            continue
        reason = _why_not(info, device)
        if reason is None:
            return info, skipped
        skipped[info.kind] = reason.replace("PLAN", shlex.quote(str(plan.path)))
    wanted = f"no engine {kind!r}" if kind else "no engine"
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items()) or (
        f"it has {', '.join(info.kind for info in plan.manifest.engines) or 'none at all'}"
    )
    where, advice = "on this machine", "build it again here with `pysdk build`"
    if device is not None:
        where, advice = "on a CUDA device", "give one with network=, or use device='cpu'"
    elif {registry.home(name) for name in skipped} == {"cuda"}:
        where, advice = "on the CPU", "use device='cuda'"
    raise EngineError(f"plan {str(plan.path)!r} has {wanted} that runs {where} ({reasons}); {advice}")


def _why_not(info: EngineInfo, device: int | None) -> str | None:
    where = registry.home(info.kind)
    if where is None:
        return "this pysdk does not know it"
    if where == "cuda":
        return "it runs on a CUDA device" if device is None else registry.on_device(info.kind).unusable(info, device)
    return registry.on_cpu(info.kind).unusable(info) if device is None else "it runs on the CPU"


def passed_over(plan: Plan, chosen: EngineInfo) -> dict[str, str]:
    """Why the engines listed behind the chosen one are not taken."""
    engines = plan.manifest.engines
    reasons = {}
    for info in engines[engines.index(chosen) + 1 :]:
        reasons[info.kind] = f"comes after {chosen.kind} in the plan"
        if info.seconds_per_step and chosen.seconds_per_step:
            times = (1e3 * seconds for seconds in (info.seconds_per_step, chosen.seconds_per_step))
            reasons[info.kind] += ", {:.3g} ms per step against {:.3g} where it was built".format(*times)
    return reasons
