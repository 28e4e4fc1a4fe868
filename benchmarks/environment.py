"""Where numbers were taken: processor, threads and versions, and nothing that names the machine."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pysdk import _native
from pysdk.distribution import installed_version
from pysdk.machine.processors import default_threads

PACKAGES = ("torch", "onnxruntime", "openvino", "ncnn", "pnnx", "diffusers", "numpy")


def processor() -> str:
    """Its name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.is_file() else "", re.MULTILINE)
    return found[1] if found else platform.machine()


def complete(machine_info: dict[str, Any], count: int) -> None:
    """Add to pytest-benchmark's description of the machine, in place, and reduce it to what a result needs."""
    cpu = machine_info["cpu"].get("brand_raw", platform.machine())
    machine_info.clear()
    machine_info.update(
        cpu=cpu,
        cores=default_threads(),
        threads=count,
        kernels=_native.isa(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions={"pysdk": installed_version()}
        | {name: version(name) for name in PACKAGES if find_spec(name) is not None},
    )


def describe(machine_info: dict[str, Any]) -> str:
    """The same for people, as a Markdown list."""
    versions = ", ".join(f"{name} {number}" for name, number in machine_info["versions"].items())
    return (
        f"- {machine_info['cpu']}; {threads(machine_info)} for everyone, {machine_info['cores']} usable; "
        f"our kernels: {machine_info['kernels']}\n"
        f"- {machine_info['system']}\n- {versions}\n"
    )


def threads(machine_info: dict[str, Any]) -> str:
    """How many threads everyone had."""
    count = machine_info["threads"]
    return f"{count} thread{'s' * (count > 1)}"


def slug(machine_info: dict[str, Any]) -> str:
    """The processor's name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", str(machine_info["cpu"]).lower()).strip("-")
