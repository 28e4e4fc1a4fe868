"""The native engine: a program made from the network when the plan was built, run by csrc/engine/ without Python.

A plan has it as two files. native.json is a `Head`; native.constants holds the weights that neither network.onnx has
nor, of a large network, network.data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from pysdk import _native
from pysdk.engines.contract import Buffers
from pysdk.engines.cost import Cost
from pysdk.errors import EngineError
from pysdk.machine.memory import Budget
from pysdk.plan.manifest import EngineInfo, ModelInfo

VERSION = 1
MAX_BYTES = 16 << 20
"""The most bytes in native.json."""
MAX_OPS = 1 << 14
"""The most operations, and the most tensors; the largest networks have a tenth."""
WORK_PER_WEIGHT = 1 << 16
LEAST_WORK = 1 << 38
"""How much one image and step may cost: so many multiplications per weight in the files, or so many if that is more.

A float that is read or written counts as sixteen. ADM 512x512 has about 3,600 per weight, SDXL 1,200; the second limit
is a few seconds on two processors. So a small file makes no step last hours.
"""

Source = Literal["network", "constants", "data"]
SOURCES: tuple[Source, ...] = get_args(Source)

Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Whole = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Shape = Annotated[tuple[Size, ...], Meta(min_length=1, max_length=4)]


class TensorInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """What an operation writes: for each image, or once for the batch if `shared`."""

    channels: Size
    height: Size
    width: Size
    shared: bool


class PieceInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """Float32 values at an offset in bytes of a file; the file has the transpose of `shape` if `transposed`."""

    source: Source
    offset: Annotated[int, Meta(ge=0, le=2**32)]
    shape: Shape
    transposed: bool


class WeightInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """A weight: its pieces stacked along the first axis."""

    shape: Shape
    parts: Annotated[tuple[PieceInfo, ...], Meta(min_length=1, max_length=10_000)]


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """A program. What its operations mean, and that they fit together, csrc/engine/ checks."""

    version: int
    tensors: Annotated[tuple[TensorInfo, ...], Meta(max_length=MAX_OPS)]
    weights: Annotated[tuple[WeightInfo, ...], Meta(max_length=100_000)]
    ops: Annotated[
        tuple[dict[str, bool | Whole | float | str | tuple[Whole, ...]], ...], Meta(min_length=1, max_length=MAX_OPS)
    ]


def unusable(info: EngineInfo) -> str | None:
    """None: every processor can run it."""
    return None


class NativeEngine:
    """A loaded program; see `pysdk.engines.contract.Engine`."""

    def __init__(self, program: _native.Program, threads: int) -> None:
        self.program = program
        self.threads = threads
        self.description = f"native, CPU, {_native.isa()}, {threads} threads"

    def memory(self, images: int) -> int:
        """Bytes of activations and work space of a network bound for so many images."""
        return self.program.cost(batch=images, threads=self.threads).network

    def bind(self, buffers: Buffers) -> _native.Network:
        """A native network on the buffers, which a chain runs without Python."""
        return _native.Network(
            self.program,
            network_input=buffers.network_input,
            network_time=buffers.network_time,
            network_labels=buffers.network_labels,
            network_output=buffers.network_output,
            threads=self.threads,
        )


def load(
    model: ModelInfo,
    info: EngineInfo,
    program: memoryview,
    threads: int,
    *sources: memoryview,
    budget: Budget | None = None,
    trust: bool = False,
) -> NativeEngine:
    """A program (native.json) whose weights are in `sources`: network.onnx, native.constants and maybe network.data.

    Raises:
        EngineError: it is damaged, of another version, not a program of this network, or, without `trust`, has too
            much to compute.
        MemoryLimitError: its weights, or what it needs for the smallest batch, are more than the budget has.
    """
    made = check(model, program, *sources)
    cost = checked_cost(made, 1 if info.batch_invariant else info.batch_size, threads, sources, trust=trust)
    if budget is not None:
        budget.check(cost.weights + max(cost.loading, cost.network), "loading the native network needs")
        budget.take(cost.weights, "the weights of the native network need")
    made.pack(threads=threads)
    return NativeEngine(made, threads)


def checked_cost(
    program: _native.Program, batch: int, threads: int, sources: Sequence[memoryview], *, trust: bool = False
) -> _native.Cost:
    """What a program takes; EngineError if a step is out of proportion to its weights, unless they are trusted."""
    reason = excess(program, sources)
    if reason is not None and not trust:
        raise EngineError(f"the native program takes {reason}; give trust=True (--trust) if you know who made it")
    return _costed(program, batch, threads)


def excess(program: _native.Program, sources: Sequence[memoryview]) -> str | None:
    """By how much a step is out of proportion to its weights, which only those who trust it run; None if it is not."""
    one = _costed(program, 1, 1)
    work = one.multiplications + 16 * one.moved
    most = max(LEAST_WORK, WORK_PER_WEIGHT * sum(len(source) for source in sources) // 4)
    if work <= most:
        return None
    return (
        f"{work:.3g} multiplications for an image and step, more than the {most:.3g} that a network with so many "
        "weights may have"
    )


def cost(model: ModelInfo, info: EngineInfo, program: memoryview, threads: int, *sources: memoryview) -> Cost:
    """What a program takes, from its structure alone. EngineError as in `load`."""
    made = check(model, program, *sources)
    found, reason = _costed(made, info.batch_size, threads), excess(made, sources)
    return Cost(
        weights=found.weights,
        network=found.network,
        multiplications=found.multiplications / info.batch_size,
        needs_trust=reason is not None,
        refused=None if reason is None else f"it takes {reason}",
    )


def _costed(program: _native.Program, batch: int, threads: int) -> _native.Cost:
    try:
        return program.cost(batch=batch, threads=threads)
    except ValueError as error:
        raise EngineError(f"the native program cannot run: {error}; give a smaller batch_size") from None


def check(model: ModelInfo, program: memoryview, *sources: memoryview) -> _native.Program:
    """A program that is checked, but has no memory yet. EngineError as in `load`."""
    if len(program) > MAX_BYTES:
        raise EngineError(f"the native program has {len(program)} bytes, more than the {MAX_BYTES} allowed")
    try:
        head = msgspec.json.decode(program, type=Head)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise EngineError(f"the native program cannot be read: {error}; build the plan again") from None
    if head.version != VERSION:
        raise EngineError(f"the native program is of version {head.version}, this pysdk runs version {VERSION}")
    try:
        return _native.Program(
            shape=model.shape,
            out_channels=model.out_channels,
            tensors=[(tensor.channels, tensor.height, tensor.width, tensor.shared) for tensor in head.tensors],
            weights=[(weight.shape, [_place(piece) for piece in weight.parts]) for weight in head.weights],
            ops=list(head.ops),
            sources=list(sources),
        )
    except ValueError as error:
        raise EngineError(f"the native program is not valid: {error}; build the plan again") from None


def _place(piece: PieceInfo) -> tuple[int, int, int, int, bool]:
    """(source, offset, rows, columns, transposed)"""
    rows = piece.shape[0]
    return SOURCES.index(piece.source), piece.offset, rows, math.prod(piece.shape[1:]), piece.transposed
