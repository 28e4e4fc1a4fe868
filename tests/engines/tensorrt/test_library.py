"""Which TensorRT is installed, what it says, and that the real TensorRT-RTX has what is used of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pysdk.engines.tensorrt import libraries
from pysdk.engines.tensorrt.libraries import Log
from pysdk.engines.tensorrt.protocols import TensorrtContext, TensorrtEngine
from pysdk.errors import EngineError


def test_a_folder_with_its_name_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.setattr(libraries, "MODULES", {"tensorrt": ("tensorrt",)})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(libraries.importlib.sys.modules, "tensorrt", raising=False)
    assert libraries.installed() == []


def test_what_the_library_says_is_kept() -> None:
    said: list[tuple[str, str]] = []
    log = Log(lambda severity, message: said.append((severity, message)))
    for severity, message in ((3, "fine"), (1, "not\nfine"), (1, "not fine"), (0, "worse")):
        log.record(severity, message)
    assert said == [("info", "fine"), ("error", "not fine"), ("error", "not fine"), ("internal error", "worse")]
    assert log.reason() == "not fine; worse"
    assert log.reason() == "it gave no reason"


# The real library, if it is there.


@pytest.mark.skipif("tensorrt_rtx" not in libraries.installed(), reason="TensorRT-RTX is not installed")
def test_the_installed_library() -> None:
    library = libraries.find("tensorrt_rtx")
    assert library.version == libraries.installed_version("tensorrt_rtx") == library.api.__version__
    assert library.builds_without_device
    assert tuple(library.compute_capabilities()) == libraries.RTX_CAPABILITIES
    # what a context of TensorRT-RTX is made with, which needs a device to be called
    assert len(library.capture_flags()) == 1
    assert hasattr(library.api.ExecutionContextAllocationStrategy, "USER_MANAGED")
    assert hasattr(library.api.IRuntimeConfig, "set_execution_context_allocation_strategy")
    assert hasattr(library.api.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert hasattr(library.api.DynamicShapesKernelSpecializationStrategy, "EAGER")
    for kind, name, form in (
        ("IRuntimeConfig", "create_runtime_cache", ") -> nvinfer1::IRuntimeCache"),
        ("IRuntimeConfig", "set_runtime_cache", ", cache: nvinfer1::IRuntimeCache = None) -> bool"),
        ("IRuntimeCache", "serialize", "IRuntimeCache) -> tensorrt_rtx_bindings.tensorrt_rtx.IHostMemory"),
        ("IRuntimeCache", "deserialize", "Buffer) -> bool"),
    ):
        assert form in getattr(getattr(library.api, kind), name).__doc__
    for name in vars(TensorrtEngine):
        assert name.startswith("_") or hasattr(library.api.ICudaEngine, name)
    for name in vars(TensorrtContext):
        assert name.startswith("_") or hasattr(library.api.IExecutionContext, name)
    with pytest.raises(EngineError, match="cannot load the engine: "):
        library.deserialize(memoryview(b"not an engine" * 100))
