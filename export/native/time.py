"""The branch that depends on t alone: sines of it."""

from __future__ import annotations

import numpy as np
from pysdk.export.native.lowering import Lowering, Node, lowers
from pysdk.export.native.program import NotCovered, Tensor, Timestep
from pysdk.export.native.values import Line, Wave, describe
from pysdk.export.native.views import Component, View, coalesced


@lowers("Sin", "Cos")
def sine(lowering: Lowering, node: Node) -> Wave:
    """Sine or cosine of multiples of t."""
    value = node.inputs[0]
    if not isinstance(value, Line):
        raise NotCovered(f"is of {describe(value)}, expected a multiple of t")  # type: ignore[arg-type]
    turns = np.full(value.slope.shape, 0.0 if node.kind == "Sin" else 1.0)
    return Wave(value.scale, value.slope, turns)


def sines(lowering: Lowering, wave: Wave) -> View:
    """The sines as a vector, one for the whole batch: every row has to be the same."""
    *rows, channels = wave.slope.shape
    slopes, turns = (array.reshape(-1, channels) for array in (wave.slope, wave.quarter_turns))
    if (slopes != slopes[0]).any() or (turns != turns[0]).any():
        raise NotCovered("embeds several multiples of t")

    def make(out: int) -> Timestep:
        frequencies, quarter_turns = lowering.weight(slopes[0]), lowering.weight(turns[0])
        return Timestep(out=out, frequencies=frequencies, quarter_turns=quarter_turns, scale=wave.scale)

    key = ("timestep", wave.scale, slopes[0].tobytes(), turns[0].tobytes())
    vector = lowering.emit(Tensor(channels, 1, 1, True), make, key)
    dims = [coalesced([Component(size, None, 0)]) for size in rows]
    return View(vector.tensor, (*dims, coalesced([Component(channels, "c", 1)])))
