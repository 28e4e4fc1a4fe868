"""A chain of four rows on two images, whose network does nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from pysdk import _native
from pysdk.diffusion.table import StepTable

BATCH, SHAPE = 2, (1, 3, 5)
INDEX = np.arange(BATCH, dtype=np.uint64)
ROWS = StepTable.from_columns(t=[3.0, 2.0, 1.0, 0.0], c_in=0.5, q=1.0, a=0.5, b=0.5, s=[1, 1, 1, 0]).float32()
TABLE_OPTIONS = ("clip", "clip_limit", "clip_ratio", "clip_max", "learned_variance", "init_scale")


def make_chain(**options: Any) -> _native.Chain:
    chain = _native.Chain(**{"batch": BATCH, "shape": SHAPE} | options)
    chain.attach(lambda: None)
    return chain


def begin(chain: _native.Chain, **options: Any) -> None:
    shared = {name: options.pop(name) for name in TABLE_OPTIONS if name in options}
    table = _native.StepTable(options.pop("rows", ROWS), **shared)
    chain.begin(**{"table": table, "seeds": INDEX, "images": INDEX} | options)
