"""Runs an adapted ONNX network a few times before it is packed: what it returns, and whether images stay apart."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.noise_levels import Levels
from pysdk.distribution import require
from pysdk.engines.onnxruntime.engine import open_session
from pysdk.errors import CheckpointError
from pysdk.export.importers.onnx.options import OnnxOptions
from pysdk.export.lowering.surgery import one_line
from pysdk.machine.processors import default_threads

_BATCH = 3
_MAX_CROSSTALK = 1e-3
"""Largest change of an image by its neighbours, relative to the largest output; rounding is far below."""


def probe(
    adapted: onnx.ModelProto, weights: memoryview | None, shape: tuple[int, int, int], told: OnnxOptions, source: str
) -> int:
    """Channels the network returns for images of `shape`, from batches of 1 and 3 at two timesteps.

    Raises:
        CheckpointError: ONNX Runtime cannot run it, the output is not (batch, C or 2C, H, W), is not finite, or an
            image depends on its neighbours in the batch.
    """
    require("onnxruntime", "pip install onnxruntime")
    try:
        session, _weights = open_session(adapted.SerializeToString(), default_threads(), weights, trust=True)
    except Exception as error:  # its exceptions share no base class
        raise CheckpointError(f"ONNX Runtime cannot load {source}: {one_line(error)}") from None
    rng = np.random.default_rng(0)
    x = rng.standard_normal((_BATCH, *shape)).astype(np.float32)
    labels = np.array([(told.num_classes or 1) - 1, 0, told.null_label or 0])  # a table that is too short shows
    taken = {node.name for node in session.get_inputs()}

    def run(count: int, t: float) -> NDArray[np.float32]:
        feed = {"x": x[:count], "t": np.array([t], np.float32), "label": labels[:count]}
        try:
            (y,) = session.run(["output"], {name: value for name, value in feed.items() if name in taken})
        except Exception as error:  # likewise
            raise CheckpointError(f"{source} fails on a batch of {count} images: {one_line(error)}") from None
        return np.asarray(y)

    channels = 0
    for t in _times(told):
        alone, together = run(1, t), run(_BATCH, t)
        channels = alone.shape[1] if alone.ndim == 4 else 0
        for count, y in ((1, alone), (_BATCH, together)):
            if y.shape not in ((count, shape[0], *shape[1:]), (count, 2 * shape[0], *shape[1:])):
                raise CheckpointError(
                    f"{source} returns {y.shape} for {count} images of {shape}, expected as many with {shape[0]} or "
                    f"{2 * shape[0]} channels; if its layout is another, say --layout"
                )
            if not np.isfinite(y).all():
                raise CheckpointError(f"{source} returns NaN or infinity at t = {t:.4g} on random input")
        if np.abs(together[0] - alone[0]).max() > _MAX_CROSSTALK * max(float(np.abs(alone).max()), 1e-30):
            raise CheckpointError(
                f"{source}: an image comes out differently when others are in its batch; was it exported in training "
                "mode?"
            )
    return channels


def _times(told: OnnxOptions) -> list[float]:
    """Low, middle and high values of the network's t."""
    schedule = told.schedule
    if not isinstance(schedule, EdmSchedule):
        return sorted({0.0, float(len(schedule) // 2), len(schedule) - 1.0})
    ends = schedule.sigma_min, schedule.sigma_max
    sigmas = np.array([ends[0], np.sqrt(ends[0] * ends[1]), ends[1]])
    times = Levels(schedule, told.prediction_type, np.append(sigmas[::-1], 0.0)).reading(sigmas)["t"]
    return [float(t) for t in times]
