"""Compiled inference of diffusion models: the whole reverse chain runs natively.

from pysdk import Sampler
images = Sampler("engine.plan").sample(n=64)
"""

TYPE_CHECKING = False  # typing itself takes longer to import than all of this

if TYPE_CHECKING:
    from typing import Any

    from pysdk import errors
    from pysdk.diffusion.schedule import Schedule
    from pysdk.diffusion.table import Clip, StepTable
    from pysdk.images import Images
    from pysdk.plan.reader import Plan
    from pysdk.sampler import Preview, Sampler

    __version__: str

__all__ = ["Clip", "Images", "Plan", "Preview", "Sampler", "Schedule", "StepTable", "__version__", "errors"]

# imported when first asked for, so that commands which draw nothing start without numpy
_HOMES = {
    "Clip": "pysdk.diffusion.table",
    "Images": "pysdk.images",
    "Plan": "pysdk.plan.reader",
    "Preview": "pysdk.sampler",
    "Sampler": "pysdk.sampler",
    "Schedule": "pysdk.diffusion.schedule",
    "StepTable": "pysdk.diffusion.table",
}


def __getattr__(name: str) -> "Any":
    import importlib

    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name == "errors":
        value = importlib.import_module("pysdk.errors")
    elif name == "__version__":
        from pysdk.distribution import installed_version

        value = installed_version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
