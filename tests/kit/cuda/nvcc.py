"""The CUDA compiler of tests, 13 or later, found as cmake/cuda.cmake finds it: CUDACXX, of pip, or on the path."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path


def _candidates() -> list[Path]:
    if "CUDACXX" in os.environ:
        return [Path(os.environ["CUDACXX"])]
    found = importlib.util.find_spec("nvidia")
    folders = [Path(place) / "cu13" for place in (found.submodule_search_locations or [])] if found else []
    of_pip = [folder / "bin" / "nvcc" for folder in folders if (folder / "lib" / "libcudart_static.a").exists()]
    on_path = shutil.which("nvcc")
    return [*of_pip, *([Path(on_path)] if on_path else [])]


def _is_new_enough(nvcc: Path) -> bool:
    if not nvcc.exists():
        return False
    text = subprocess.run([nvcc, "--version"], check=False, capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.", text)
    return release is not None and int(release[1]) >= 13


NVCC: Path | None = next((nvcc for nvcc in _candidates() if _is_new_enough(nvcc)), None)

# pip's packages have their libraries where nvcc does not look
FLAGS: list[str] = [] if NVCC is None else [f"-L{NVCC.parents[1] / 'lib'}"]
