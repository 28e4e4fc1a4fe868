"""A network of a simulated device that a sampler can be given in the place of its plan's engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pysdk import Plan, _testing
from pysdk.engines import choice, registry


class HostEngine:
    """An engine of the plan for the CPU on the buffers of a simulated device, which are the host's."""

    def __init__(self, plan: Path, device: _testing.SimulatedDevice, kind: str | None = None) -> None:
        self.device = device
        with Plan.open(plan) as opened:
            info, _ = choice.choose(opened, kind)
            self.engine = registry.load(opened, info, 1)
        self.description = f"{self.engine.description}, on a simulated device"

    def bind(self, buffers: Any) -> Callable[[int], None]:
        names = ("network_input", "network_time", "network_labels", "network_output")
        views = SimpleNamespace(**{name: np.from_dlpack(getattr(buffers, name)) for name in names})
        run = self.engine.bind(views)

        def work() -> None:
            run()

        def enqueue(stream: int, views: Any = views) -> None:  # keeps both, which the device does not
            self.device.call(stream, "network", work)

        return enqueue
