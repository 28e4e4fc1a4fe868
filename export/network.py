"""What an importer hands to the lowering: a torch module or an ONNX file, and all the plan has to say about it."""

from __future__ import annotations

from dataclasses import dataclass

from pysdk.export.onnx_files import OnnxFiles
from torch import nn

from pysdk.edm import EdmSchedule
from pysdk.manifest import DefaultsInfo, ModelInfo, ScheduleInfo
from pysdk.schedule import Schedule


@dataclass(frozen=True)
class Network:
    """A denoiser on the CPU in evaluation mode.

    Attributes:
        module: forward(x, t[, label]) of float32 (B, C, H, W), float32 (1,) or (B,), int64 (B,) to float32
            (B, out_channels, H, W); None if the source is an ONNX file already.
        model: shapes, classes and how to read the output.
        schedule: the forward process it was trained on.
        defaults: what `Sampler.sample()` does when it is not told.
        onnx: the network as `export_onnx` would write it, in place of `module`.
    """

    module: nn.Module | None
    model: ModelInfo
    schedule: ScheduleInfo
    defaults: DefaultsInfo
    onnx: OnnxFiles | None = None

    @property
    def size(self) -> int | None:
        """Bytes of its float32 weights, or of its ONNX file; None if it is not known."""
        if self.onnx is not None:
            return self.onnx.size
        return None if self.model.parameters is None else 4 * self.model.parameters

    def make_schedule(self) -> Schedule | EdmSchedule:
        """The schedule as an object."""
        return self.schedule.make()
