"""What `pysdk build --dry-run` prints."""

from __future__ import annotations

from collections.abc import Sequence

from pysdk.export.settings import TensorrtOptions
from pysdk.plan.manifest import EngineInfo, Manifest


def summary(
    manifest: Manifest,
    network_size: int | None,
    batch_size: int,
    wanted: Sequence[str],
    tensorrt: TensorrtOptions | None,
    ready: EngineInfo | None = None,
) -> str:
    """What `build` would write, one line each; `ready` is an engine that the source is already."""
    model, defaults = manifest.model, manifest.defaults
    channels, height, width = model.shape
    clip = {"none": "not clipped", "clamp": f"clipped to [-{defaults.clip.limit:g}, {defaults.clip.limit:g}]"}
    options = [f"{name}={value}" for name, value in defaults.options.items()]
    count = "unknown" if model.parameters is None else f"{model.parameters:,}"
    engines = [
        f"tensorrt in {(tensorrt or TensorrtOptions()).precision}" if name == "tensorrt" else name for name in wanted
    ]
    lines = {
        "network": f"{model.name}: {channels}x{height}x{width}, {model.out_channels} channels out, {count} parameters",
        "reads": f"{model.prediction_type}, variance {model.variance_type}",
        "classes": "none"
        if model.num_classes is None
        else f"{model.num_classes}, null label {'none' if model.null_label is None else model.null_label}",
        "schedule": manifest.schedule.summary(),
        "solver": ", ".join([defaults.solver, f"{defaults.steps or 'all'} steps", *options]),
        "estimate": clip.get(defaults.clip.kind, f"dynamic threshold, ratio {defaults.clip.ratio:g}"),
        "engine": f"{', '.join(engines)}, float32{' otherwise' * ('tensorrt' in wanted)}, batches of {batch_size}"
        if ready is None
        else f"{ready.kind} as it is, batches of {ready.batch_size}, no other",
        "size": "unknown" if network_size is None else f"about {readable(network_size)}",
    }
    return "\n".join(f"{name:<9}{line}" for name, line in lines.items())


def readable(size: int) -> str:
    """Bytes in MB or, from 1000 MB on, in GB."""
    return f"{size / 1e6:.3g} MB" if size < 999.5e6 else f"{size / 1e9:.3g} GB"
