"""Adding a classifier to a plan, for classifier guidance; `pysdk add-classifier` calls it."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import torch
from msgspec.structs import replace
from torch import nn

from pysdk.engines import onnxruntime
from pysdk.engines.contract import Engine
from pysdk.engines.registry import home
from pysdk.errors import ExportError, OptionError
from pysdk.export.check import NetworkBuffers, is_batch_invariant
from pysdk.export.classifier.gradient import export_gradient, log_probability_gradient
from pysdk.export.engines.onnxruntime import tell_of_trust
from pysdk.export.lowering.torch_to_onnx import MAX_RELATIVE_ERROR
from pysdk.machine.processors import default_threads
from pysdk.plan.manifest import CLASSIFIER_NAME, ClassifierInfo, EngineInfo, Manifest, ModelInfo
from pysdk.plan.reader import Plan
from pysdk.plan.writer import write_plan


def add_classifier(
    plan: str | os.PathLike[str],
    classifier: nn.Module,
    num_classes: int,
    *,
    out: str | os.PathLike[str] | None = None,
    name: str = "classifier",
    progress: bool | None = None,
) -> Manifest:
    """Write a plan again with a classifier of noisy images in it, or in place of the one it has.

    Args:
        plan: the plan.
        classifier: forward(x, t) -> logits (B, num_classes) for x float32 (B, C, H, W) and t float32 (1,), on the CPU
            in evaluation mode, trained on x_t of the plan's schedule.
        num_classes: the model's, if it has classes.
        out: the plan to write; `plan` itself when None.
        name: the classifier's.
        progress: True and False force and forbid a progress bar; by default one shows on a terminal.

    Returns:
        The manifest of the new plan.

    Raises:
        ExportError: its gradient cannot be lowered, or ONNX Runtime and torch differ by more than `MAX_RELATIVE_ERROR`.
        OptionError: num_classes is not that of the model, or no engine of the plan runs on the CPU.
    """
    from tqdm import tqdm

    with Plan.open(plan) as opened:
        manifest = opened.manifest
        if manifest.model.num_classes not in (None, num_classes):
            raise OptionError(
                f"the classifier has {num_classes} classes, expected those of the model, {manifest.model.num_classes}"
            )
        if {home(info.kind) for info in manifest.engines} == {"cuda"}:
            raise OptionError(
                f"plan {str(opened.path)!r} has no engine for the CPU, where alone classifier guidance runs; build one "
                "from a checkpoint or an ONNX file"
            )
        if manifest.schedule.edm is not None:
            raise OptionError(f"{manifest.model.name!r} is a network of sigma; classifiers are told timesteps")
        model = replace(manifest.model, out_channels=manifest.model.shape[0], num_classes=num_classes)
        batch = max(engine.batch_size for engine in manifest.engines) if manifest.engines else 1
        info = EngineInfo(kind="onnxruntime", member=CLASSIFIER_NAME, precision="float32", batch_size=batch)
        onnx = export_gradient(classifier, model.shape, num_classes)
        threads = default_threads()

        def load(count: int) -> Engine:
            return onnxruntime.load(model, info, memoryview(onnx), count, trust=True)

        engine = load(threads)
        tell_of_trust(onnx, "classifier")
        with tqdm(
            range(manifest.schedule.timesteps),
            desc="check",
            leave=False,
            disable=None if progress is None else not progress,
        ) as bar:
            error = compare(classifier, model, engine, bar)
        described = ClassifierInfo(
            name=name,
            num_classes=num_classes,
            batch_invariant=is_batch_invariant(model, load, batch, threads),
            max_abs_error=error,
        )
        members = {member: opened.member(member) for member in manifest.members} | {CLASSIFIER_NAME: onnx}
        return write_plan(opened.path if out is None else out, replace(manifest, classifier=described), members)


def compare(classifier: nn.Module, model: ModelInfo, engine: Engine, timesteps: Iterable[int]) -> float:
    """Largest |ONNX Runtime - torch| over random images at all timesteps; ExportError if it is too much."""
    buffers = NetworkBuffers(model, 1)
    call = engine.bind(buffers)
    generator = torch.Generator().manual_seed(1)
    error = largest = 0.0
    for timestep in timesteps:
        x = torch.randn(1, *model.shape, generator=generator)
        label = torch.randint(model.num_classes or 1, (1,), generator=generator)
        expected = log_probability_gradient(classifier, x, torch.tensor([float(timestep)]), label).numpy()
        buffers.network_input[:], buffers.network_time[:], buffers.network_labels[:] = (
            x.numpy(),
            timestep,
            label.numpy(),
        )
        call()
        difference = float(np.abs(buffers.network_output - expected).max())
        error = max(error, difference) if np.isfinite(difference) else float("inf")
        largest = max(largest, float(np.abs(expected).max()))
    if error > MAX_RELATIVE_ERROR * max(largest, 1e-30):
        raise ExportError(
            f"the gradient on ONNX Runtime is {error:.3g} away from torch, where it is up to {largest:.3g}; the limit "
            f"is {MAX_RELATIVE_ERROR:g} of that"
        )
    return error
