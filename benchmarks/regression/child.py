"""The program of one side: reads what to do from stdin, a JSON object a line, and answers on stdout likewise.

It is run by the side's own Python and imports nothing but that side's pysdk, whatever version that is.
"""

import gc
import hashlib
import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from pysdk import Sampler, _native


def package() -> str:
    """The version installed, under either name that the distribution has had."""
    for name in ("pysdk-diffusion", "pysdk"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


class Side:
    """A sampler, and the pieces of work that are timed."""

    def __init__(self, *, plan: str, threads: int, batches: list[int], steps: int) -> None:
        self.plan, self.threads, self.steps = plan, threads, steps
        self.batch_size: int | None = None
        self.sampler = self.load()
        if max(batches) > self.sampler.batch_size:
            self.sampler.close()
            self.batch_size = max(batches)
            self.sampler = self.load()

    def load(self) -> Sampler:
        return Sampler(self.plan, threads=self.threads, batch_size=self.batch_size)

    def describe(self) -> dict[str, Any]:
        """What this side is."""
        return {
            "pysdk": package(),
            "numerics": getattr(_native, "NUMERICS_VERSION", None),
            "python": platform.python_version(),
            "kernels": _native.isa(),
            "engine": self.sampler.info["running"]["engine"],
        }

    def work(self, batch: int) -> dict[str, Any]:
        """Load the plan (batch 0), or draw a batch; seconds, and the hash of the images."""
        start = time.perf_counter()
        if batch == 0:
            self.load().close()
            return {"seconds": time.perf_counter() - start, "hash": None}
        images = self.sampler.sample(batch, seed=0, steps=self.steps, output="float32")
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "hash": hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()}


def main() -> None:
    """Answer until stdin ends. What anybody else prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    side: Side | None = None
    for line in sys.stdin:
        if side is None:
            side = Side(**json.loads(line))
            gc.collect()
            gc.disable()
            answer = side.describe()
        else:
            answer = side.work(json.loads(line)["batch"])
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
