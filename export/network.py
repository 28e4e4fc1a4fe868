"""What an importer returns: a torch module, ONNX file or finished engine, and what a plan says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.schedule import Schedule
from pysdk.plan.manifest import DefaultsInfo, EngineInfo, ModelInfo, ScheduleInfo

if TYPE_CHECKING:
    from pysdk.export.lowering.onnx_files import OnnxFiles


@dataclass(frozen=True)
class Finished:
    """An engine that somebody else built.

    Attributes:
        info: what the plan says about it.
        files: the members it adds to the plan.
    """

    info: EngineInfo
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Network:
    """A denoiser on the CPU in evaluation mode.

    Attributes:
        module: forward(x, t[, label]) of float32 (B, C, H, W), float32 (1,) or (B,), int64 (B,) to float32
            (B, out_channels, H, W); None if the source is an ONNX file or an engine already.
        model: shapes, classes and how to read the output.
        schedule: the forward process it was trained on.
        defaults: what `Sampler.sample()` does unless told.
        onnx: the network as `export_onnx` would write it, in place of `module`.
        engine: the only engine of the plan, in place of both.
        previous: the engines in the plan that the network came from.
    """

    module: nn.Module | None
    model: ModelInfo
    schedule: ScheduleInfo
    defaults: DefaultsInfo
    onnx: OnnxFiles | None = None
    engine: Finished | None = None
    previous: tuple[EngineInfo, ...] = ()

    @property
    def size(self) -> int | None:
        """Bytes of its float32 weights, or of its ONNX file or engine; None if it is not known."""
        if self.onnx is not None:
            return self.onnx.size
        if self.engine is not None:
            return sum(map(len, self.engine.files.values()))
        return None if self.model.parameters is None else 4 * self.model.parameters

    def make_schedule(self) -> Schedule | EdmSchedule:
        """The schedule as an object."""
        return self.schedule.make()
