"""The CUDA compiler of this machine, looked for where cmake/cuda.cmake does."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path


def _found() -> Path | None:
    named = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if named is not None:
        return Path(named)
    packages = importlib.util.find_spec("nvidia")
    folders = (
        []
        if packages is None
        else [Path(folder) / "cu13" / "bin" for folder in packages.submodule_search_locations or ()]
    )
    return next((folder / "nvcc" for folder in folders if (folder / "nvcc").exists()), None)


NVCC = _found()
"""nvcc, or None."""

LINK_FLAGS = [] if NVCC is None else [f"-L{NVCC.resolve().parents[1] / 'lib'}"]
"""What nvcc of pip needs to find its libraries."""
