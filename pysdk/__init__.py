"""Compiled inference of diffusion models: the whole reverse chain runs natively.

from pysdk import Sampler
images = Sampler("engine.plan").sample(n=64)
"""

from pysdk import errors
from pysdk.images import Images
from pysdk.plan import Plan
from pysdk.sampler import Preview, Sampler
from pysdk.schedule import Schedule
from pysdk.table import Clip, StepTable

__all__ = ["Clip", "Images", "Plan", "Preview", "Sampler", "Schedule", "StepTable", "__version__", "errors"]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # costs as much as numpy, and few ask

        return version("pysdk")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
