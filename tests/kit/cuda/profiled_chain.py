"""The calls of CUDA during a chain that has run before, as torch's profiler sees them: a list of names in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import torch
from torch.autograd import DeviceType

from kit.cuda.on_gpu import smooth_chain
from pysdk import _native


def calls_while(work: Callable[[], object]) -> list[str]:
    """Names of the runtime's and the driver's calls during `work`, as the profiler sees them; not its own."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler, torch.profiler.record_function("work"):
        work()
    events = [event for event in profiler.events() if event.device_type == DeviceType.CPU]
    during = next(event.time_range for event in events if event.name == "work")
    called = [event for event in events if during.start <= event.time_range.start <= during.end]
    # CUPTI gives some names with the version they are from: cudaGraphLaunch_v10000
    return [re.sub(r"(_v\d+|_ptsz)+$", "", event.name) for event in called if event.name.startswith("cu")]


if __name__ == "__main__":
    chain, start = smooth_chain(torch, _native.cuda_device(0), steps=200)
    start()
    chain.advance(200)
    start()
    print(json.dumps(calls_while(lambda: chain.advance(200))))
