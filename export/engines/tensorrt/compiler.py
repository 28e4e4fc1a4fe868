"""Runs TensorRT's parser and builder, with or without a GPU."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pysdk.engines.tensorrt.engine import check_io
from pysdk.engines.tensorrt.libraries import IoTensor, Library, Log
from pysdk.errors import EngineError, ExportError, OptionError
from pysdk.export.settings import TensorrtOptions
from pysdk.files.atomic import atomic_file
from pysdk.machine import cuda_driver
from pysdk.plan.manifest import ModelInfo

_FIRST_BY_DEFAULT = "8.0"
"""Without a list, engines are built for all GPUs from here on: the first with bfloat16."""


def targets(library: Library, options: TensorrtOptions) -> tuple[str, ...]:
    """The compute capabilities to build for; this machine's GPU's if the library needs a GPU.

    Raises:
        OptionError: the library cannot build for one that was asked for.
        ExportError: it needs a GPU, and there is none.
    """
    known = library.compute_capabilities()
    if known:
        unknown = [wanted for wanted in options.compute_capabilities if wanted not in known]
        if unknown:
            raise OptionError(f"compute_capabilities has {unknown[0]}, {library.title} builds for {', '.join(known)}")
        first = float(_FIRST_BY_DEFAULT)
        return options.compute_capabilities or tuple(name for name in known if float(name) >= first)
    here = require_device(f"{library.title} builds on the GPU that the engine is for; tensorrt_rtx builds without one")
    if options.compute_capabilities not in ((), (here,)):
        raise OptionError(
            f"compute_capabilities is {' '.join(options.compute_capabilities)}, but {library.title} builds for the GPU "
            f"of this machine, {here}"
        )
    return (here,)


def require_device(reason: str) -> str:
    """The compute capability of this machine's GPU. ExportError if there is none."""
    try:
        return cuda_driver.device().compute_capability
    except EngineError as error:
        raise ExportError(f"{reason}, and {error}") from error


def compile_network(
    library: Library,
    onnx: bytes,
    model: ModelInfo,
    profile: tuple[int, int, int],
    capabilities: tuple[str, ...],
    options: TensorrtOptions,
    log: Log,
) -> tuple[bytes, tuple[IoTensor, ...], dict[str, int]]:
    """The serialized engine, its inputs and outputs, and the layers of the network it was made of.

    Raises:
        EngineError: the library cannot start.
        ExportError: parser or builder refuse.
    """
    logger = library.logger(log)
    builder = library.make("Builder", log, logger)
    network = builder.create_network(library.network_flags())
    parser = library.make("OnnxParser", log, network, logger)
    if not parser.parse(onnx):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise ExportError(
            f"{library.title} cannot read the network: "
            + ("; ".join(f"{error.node_name or 'graph'}: {error.desc()}" for error in errors) or log.reason())
        )
    io = tuple(
        IoTensor(tensor.name, library.dtype_name(tensor.dtype), tuple(tensor.shape), is_input)
        for count, get, is_input in (
            (network.num_inputs, network.get_input, True),
            (network.num_outputs, network.get_output, False),
        )
        for tensor in (get(index) for index in range(count))
    )
    try:
        check_io(list(io), model)
    except EngineError as error:
        raise ExportError(f"{library.title} reads the network wrongly: {error}") from error
    layers = Counter(network.get_layer(index).type.name.lower() for index in range(network.num_layers))
    config = configure(library, builder, capabilities, options)
    shapes = builder.create_optimization_profile()
    for tensor in io:
        if tensor.is_input:
            shapes.set_shape(
                tensor.name, *([size if axis == -1 else axis for axis in tensor.shape] for size in profile)
            )
    config.add_optimization_profile(shapes)
    cache = read_timing_cache(config, options.timing_cache, log)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"{library.title} cannot build the engine: {log.reason()}")
    if cache is not None and options.timing_cache is not None:
        with atomic_file(options.timing_cache) as file:
            file.write(bytes(config.get_timing_cache().serialize()))
    return bytes(engine), io, dict(layers)


def configure(library: Library, builder: Any, capabilities: tuple[str, ...], options: TensorrtOptions) -> Any:
    """The builder's configuration: one stream, for capture into a graph; full names of layers, for the inspector;
    float32 with all its digits, where TensorRT would round to TF32 by default."""
    config = builder.create_builder_config()
    config.max_aux_streams = 0
    config.profiling_verbosity = library.api.ProfilingVerbosity.DETAILED
    config.clear_flag(library.api.BuilderFlag.TF32)
    for flag in [*library.capture_flags(), *(library.strip_flags() if options.strip_weights else [])]:
        config.set_flag(flag)
    known = library.compute_capabilities()
    if known:
        config.num_compute_capabilities = len(capabilities)
        for index, name in enumerate(capabilities):
            config.set_compute_capability(known[name], index)
    return config


def read_timing_cache(config: Any, path: Path | None, log: Log) -> Any:
    """The measured tactics of earlier builds, put into the configuration; None if they are not kept.

    Raises:
        ExportError: the file cannot be read, or is of another GPU or version: it would be overwritten.
    """
    if path is None:
        return None
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ExportError(f"cannot read the timing cache {str(path)!r}: {error.strerror}") from error
    log.reason()  # what was said before is not about the cache
    cache = config.create_timing_cache(data)  # an empty one for bytes it cannot read, which it says
    if log.errors or cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise ExportError(
            f"the timing cache {str(path)!r} cannot be used here ({log.reason()}): it may be of another GPU or "
            "version; name another file, or delete it"
        )
    return cache


def inspect(library: Library, engine: bytes) -> dict[str, int] | None:
    """How many layers of each kind the engine has, by its own inspector; None without a device, or if it says none."""
    try:
        cuda_driver.device()
        loaded = library.deserialize(engine)
    except EngineError:
        return None
    inspector = loaded.create_engine_inspector()
    text = inspector.get_engine_information(library.api.LayerInformationFormat.JSON)
    try:
        found = json.loads(text or "{}").get("Layers", [])
    except ValueError:  # names of layers are not always escaped; the engine is good all the same
        return None
    kinds = (str(layer.get("LayerType", "layer")) if isinstance(layer, dict) else "layer" for layer in found)
    return dict(Counter(kinds)) or None
