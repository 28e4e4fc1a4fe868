"""TensorRT's own Python modules, of several versions, on libraries that make nothing: what is used of them exists.

The modules are 1 MB each and need a C compiler here; the libraries behind them are gigabytes and need a GPU. Where
`make tensorrt-install` has put no modules, this is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from kit.places import ROOT

WHEELS = sorted((ROOT / "build" / "tensorrt-bindings").glob("*.whl"))
CC = shutil.which("cc")

FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    *("getBuilderPluginRegistry", "getPluginRegistry", "initLibNvInferPlugins"),
)

PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
from pysdk.engines.tensorrt import libraries
from pysdk.errors import EngineError
from pysdk.engines.tensorrt.libraries import Log
from pysdk.engines.tensorrt.protocols import TensorrtContext, TensorrtEngine
library = libraries.find("tensorrt")
api = library.api
assert library.version == libraries.installed_version("tensorrt"), library.version
assert library.network_flags() and not library.compute_capabilities() and not library.capture_flags()
assert len({int(flag) for flag in library.strip_flags()}) == 2
assert {library.dtype_name(kind) for kind in api.DataType.__members__.values()} >= {
    "float32", "float16", "bfloat16", "int64", "int32"}
assert [int(api.ILogger.Severity.__members__[name]) for name in ("INTERNAL_ERROR", "ERROR", "VERBOSE")] == [0, 1, 4]
used = {
    "ICudaEngine": [name for name in vars(TensorrtEngine) if name[0] != "_" and name != "create_runtime_config"],
    "IExecutionContext": [name for name in vars(TensorrtContext) if name[0] != "_"],
    "Runtime": ["deserialize_cuda_engine"],
    "Refitter": ["refit_cuda_engine"],
    "OnnxParserRefitter": ["refit_from_bytes"],
    "EngineInspector": ["get_engine_information"],
    "Builder": ["create_network", "create_builder_config", "create_optimization_profile", "build_serialized_network"],
    "OnnxParser": ["parse", "num_errors", "get_error"],
    "ParserError": ["node_name", "desc"],
    "INetworkDefinition": ["num_inputs", "num_outputs", "num_layers", "get_input", "get_output", "get_layer"],
    "IBuilderConfig": ["max_aux_streams", "profiling_verbosity", "clear_flag", "set_flag", "add_optimization_profile",
                       "create_timing_cache", "set_timing_cache", "get_timing_cache"],
    "ITimingCache": ["serialize"],
    "IOptimizationProfile": ["set_shape"],
    "BuilderFlag": ["TF32"],
    "ProfilingVerbosity": ["DETAILED"],
    "LayerInformationFormat": ["JSON"],
    "TensorIOMode": ["INPUT"],
    "TensorFormat": ["LINEAR"],
    "TensorLocation": ["DEVICE"],
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
}
missing = [f"{kind}.{name}" for kind, names in used.items() for name in names if not hasattr(getattr(api, kind), name)]
assert not missing, missing
assert "ignore_mismatch: bool" in api.IBuilderConfig.set_timing_cache.__doc__
assert "uffer" in api.Runtime.deserialize_cuda_engine.__doc__.split("->")[0], "any memory, not bytes alone"
for kind in ("Builder", "Runtime"):
    try:
        library.make(kind, Log(), library.logger(Log()))
    except EngineError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared libraries under the names the modules load, every function of which returns null."""
    folder = tmp_path_factory.mktemp("libraries")
    source = folder / "null.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for major in (10, 11):
        for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
            soname = f"lib{name}.so.{major}"
            command = [CC, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", folder / soname, source]
            subprocess.run([str(part) for part in command], check=True)
    return folder


@pytest.mark.skipif(not WHEELS or CC is None, reason="no bindings of TensorRT (`make tensorrt-install`) or no compiler")
@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name.split("-")[1])
def test_what_is_used_of_the_library_exists(wheel: Path, libraries: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    command = [sys.executable, "-c", PROBE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    version = wheel.name.split("-")[1]
    assert done.stdout.splitlines() == [
        f"TensorRT {version} cannot make a {kind}: it gave no reason" for kind in ("Builder", "Runtime")
    ]
