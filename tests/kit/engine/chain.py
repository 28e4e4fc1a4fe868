"""A chain around a network of the native engine."""

from __future__ import annotations

import numpy as np

from kit.engine.programs import Program
from pysdk import _native
from pysdk.diffusion.table import StepTable


def chain_of(program: Program, threads: int = 1, rows: int = 5) -> tuple[_native.Chain, _native.Network]:
    """A chain, begun, and a network on its buffers that is not attached yet."""
    chain = _native.Chain(batch=program.batch, shape=program.x.shape[1:])
    network = _native.Network(
        program.native(),
        network_input=chain.network_input,
        network_time=chain.network_time,
        network_labels=chain.network_labels,
        network_output=chain.network_output,
        threads=threads,
    )
    table = StepTable.from_columns(t=np.arange(rows, 0.0, -1), c_in=1.0, q=1.0, a=0.5, b=0.5, s=0.0)
    index = np.arange(program.batch, dtype=np.uint64)
    chain.begin(table.native, seeds=index, images=index, labels=index.astype(np.int64))
    return chain, network
