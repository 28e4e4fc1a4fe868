"""The TensorRT engine of a plan: a network's ONNX file in the precision wanted, compiled, and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pysdk.engines.tensorrt import libraries
from pysdk.engines.tensorrt.engine import MEMBER
from pysdk.engines.tensorrt.libraries import IoTensor, Library, Log
from pysdk.errors import OptionError
from pysdk.export.check import Track
from pysdk.export.engines.tensorrt.compiler import compile_network, inspect, require_device, targets
from pysdk.export.engines.tensorrt.precision_error import TypedError, measure
from pysdk.export.lowering.precision import in_precision
from pysdk.export.network import Network
from pysdk.export.settings import TensorrtOptions
from pysdk.machine.processors import default_threads
from pysdk.plan.manifest import NETWORK_NAME, EngineInfo


@dataclass(frozen=True)
class Built:
    """An engine, serialized, and what is known of it.

    Attributes:
        info: what the plan says of it.
        files: the members it adds to the plan.
        io: its inputs and outputs.
        layers: how many layers of each type; the engine's where there is a device, else those of its network.
        inspected: whether `layers` are those of the engine.
        error: what its precision costs; None for float32.
    """

    info: EngineInfo
    files: dict[str, bytes] = field(repr=False)
    io: tuple[IoTensor, ...]
    layers: dict[str, int]
    inspected: bool
    error: TypedError | None

    def summary(self) -> str:
        """For people, some lines."""
        whose = "engine" if self.inspected else "network (the engine could not be inspected here)"
        counts = ", ".join(f"{count} {kind}" for kind, count in Counter(self.layers).most_common(8))
        needs = ", ".join(f"{key} {value}" for key, value in self.info.requires.items())
        return "\n".join(
            [
                f"  {sum(map(len, self.files.values())):,} bytes; needs {needs}",
                *(f"  {'in ' if tensor.is_input else 'out'} {tensor}" for tensor in self.io),
                f"  layers of the {whose}: {sum(self.layers.values())}, most of them {counts}",
                *([self.error.table()] if self.error else []),
            ]
        )


def build_tensorrt(
    network: Network,
    onnx: bytes,
    batch_size: int,
    options: TensorrtOptions,
    check_seconds: float,
    track: Track = list,
    echo: Callable[[str, str], object] | None = None,
    library: Library | None = None,
) -> Built:
    """A TensorRT engine of a network.

    Args:
        network: what the importer returned.
        onnx: its float32 ONNX file.
        batch_size: images of one call.
        options: precision, profile, ...
        check_seconds: about how long, at most, a lower precision is compared with float32.
        track: wraps the timesteps while they are compared.
        echo: gets what the builder logs, as (severity, message).
        library: the TensorRT to use, loaded; by default the one of the options.

    Raises:
        MissingDependencyError: there is no TensorRT.
        EngineError: it cannot be loaded.
        OptionError: the options do not fit the library.
        ExportError: the precision is too coarse, or the parser or builder refuses; the message has their reason.
    """
    model = network.model
    profile = options.profile(batch_size)
    library = library or libraries.find(options.library)
    capabilities = targets(library, options)
    if options.timing_cache is not None and not library.has_timing_cache:
        raise OptionError(
            f"timing_cache is {str(options.timing_cache)!r}, but {library.title} measures no tactics when it builds"
        )
    if options.strip_weights:
        require_device(f"{library.title} needs a GPU to build an engine without weights")
    error = None
    if options.precision != "float32":
        error = measure(model, network.schedule, onnx, options.precision, check_seconds, track, default_threads())
    typed = in_precision(onnx, options.precision)
    log = Log(echo)
    engine, io, layers = compile_network(library, typed, model, profile, capabilities, options, log)
    inspected = inspect(library, engine)
    requires = {"library": library.name, "version": library.version, "compute_capability": " ".join(capabilities)}
    notes = [
        error.summary() if error else "float32, not compared: there is no run without a device",
        f"batches of {profile[0]} to {profile[2]}, fastest at {profile[1]}",
        f"{sum((inspected or layers).values())} layers in the {'engine' if inspected else 'network it was built from'}",
        *(["without weights, which it takes from network.onnx"] if options.strip_weights else []),
    ]
    info = EngineInfo(
        kind="tensorrt",
        member=MEMBER,
        data=(NETWORK_NAME,) if options.strip_weights else (),
        precision=options.precision,
        batch_size=batch_size,
        batches=(profile[0], profile[2]),
        requires=requires,
        max_abs_error=error.max_abs_error if error else None,
        notes="; ".join(notes),
    )
    return Built(info, {MEMBER: engine}, io, inspected or layers, inspected is not None, error)
