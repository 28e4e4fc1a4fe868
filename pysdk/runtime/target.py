"""Where a plan's network runs, and how: the arguments of `Sampler`, and one way to load them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pysdk.checks import flag, whole_number
from pysdk.errors import OptionError
from pysdk.machine.devices import device_number
from pysdk.machine.memory import Budget
from pysdk.machine.processors import MAX_THREADS, default_threads
from pysdk.plan.reader import Plan

if TYPE_CHECKING:
    from pysdk.runtime.cpu import CpuExecutor
    from pysdk.runtime.cuda import CudaExecutor, Launch


@dataclass(frozen=True)
class Target:
    """What to run a plan on; the fields are those of `Sampler`, which documents them.

    Raises:
        OptionError, OptionTypeError: a value is out of range, or is not for this device.
    """

    device: str = "cpu"
    engine: str | None = None
    threads: int | None = None
    batch_size: int | None = None
    network: Any = None
    launch: Launch = "auto"
    max_memory: int | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        number = device_number(self.device)
        if number is None and (self.network is not None or self.launch != "auto"):
            raise OptionError("network and launch are for a CUDA device; give device='cuda' too, or leave them out")
        if number is not None and self.max_memory is not None:
            raise OptionError("max_memory limits the memory of the CPU's engines; leave it out on a CUDA device")
        flag("trust", self.trust)
        threads = default_threads() if self.threads is None else self.threads
        object.__setattr__(self, "threads", whole_number("threads", threads, 1, MAX_THREADS))


@dataclass(frozen=True)
class Loaded:
    """A plan, ready to draw images.

    Attributes:
        executor: runs requests.
        kind: the engine's in use.
        skipped: the engines before it, and why each does not run there.
    """

    executor: CpuExecutor | CudaExecutor
    kind: str
    skipped: dict[str, str]


def load(plan: Plan, target: Target) -> Loaded:
    """Load the first engine of an open plan that runs on the target.

    Raises:
        MemoryLimitError: there is too little memory for the plan.
        EngineError: no engine of the plan runs there, or its network is refused.
        DeviceError: there is no such device, or it has no room.
        OptionError: the engine cannot run so.
    """
    number, budget = device_number(target.device), Budget(target.max_memory)
    if number is None:
        from pysdk.runtime import cpu

        assert target.threads is not None
        return Loaded(
            *cpu.load(
                plan,
                target.engine,
                threads=target.threads,
                batch_size=target.batch_size,
                budget=budget,
                trust=target.trust,
            )
        )
    from pysdk.runtime import cuda

    return Loaded(
        *cuda.load(
            plan,
            target.engine,
            number=number,
            network=target.network,
            batch_size=target.batch_size,
            launch=target.launch,
            budget=budget,
        )
    )
