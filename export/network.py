"""What an importer hands to the lowering: a torch module and everything the plan has to say about it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pysdk.manifest import DefaultsInfo, ModelInfo, ScheduleInfo
from pysdk.schedule import Schedule


@dataclass(frozen=True)
class Network:
    """A denoiser on the CPU in evaluation mode.

    Attributes:
        module: forward(x, t[, label]) of float32 (B, C, H, W), float32 (1,) or (B,), int64 (B,) to float32
            (B, out_channels, H, W).
        model: shapes, classes and how to read the output.
        schedule: the forward process it was trained on.
        defaults: what `Sampler.sample()` does when it is not told.
    """

    module: nn.Module
    model: ModelInfo
    schedule: ScheduleInfo
    defaults: DefaultsInfo

    def make_schedule(self) -> Schedule:
        """The schedule as an object."""
        return Schedule.from_betas(self.schedule.betas)
