"""Small programs for the tests of the CPU engine: made op by op, run on numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from pysdk import _native

Array = NDArray[Any]


@dataclass
class Program:
    """Arguments of `_native.Program`, and the inputs of one batch."""

    x: Array
    """(B, C, H, W) float32, the network's input."""
    out_channels: int = 1
    t: float = 1.0
    labels: Array | None = None
    """(B,) int64, 0, 1, ... if None."""
    tensors: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)
    ops: list[dict[str, Any]] = field(default_factory=list)
    source: bytes = b""

    def __post_init__(self) -> None:
        self.x = np.ascontiguousarray(self.x, np.float32)

    @property
    def batch(self) -> int:
        return len(self.x)

    def tensor(self, channels: int, height: int = 1, width: int = 1, shared: bool = False) -> int:
        self.tensors.append((channels, height, width, shared))
        return len(self.tensors) - 1

    def like(self, tensor: int) -> int:
        return self.tensor(*self.tensors[tensor])

    def weight(self, values: ArrayLike) -> int:
        array = np.asarray(values, np.float32)
        rows = array.shape[0]
        self.weights.append((array.shape, [(0, len(self.source), rows, array.size // rows, False)]))
        self.source += array.tobytes()
        return len(self.weights) - 1

    def op(self, name: str, **fields: Any) -> int:
        """Append an op and return the tensor it writes."""
        self.ops.append({"op": name} | {key: value for key, value in fields.items() if value is not None})
        return fields.get("out", -1)

    def image(self) -> int:
        return self.op("input", out=self.tensor(*self.x.shape[1:]))

    def output(self, tensor: int) -> Program:
        self.out_channels = self.tensors[tensor][0]
        self.op("output", x=tensor)
        return self

    def conv(self, x: list[int], weight: Array, pads: tuple[int, ...] | list[int] = (0, 0, 0, 0), **fields: Any) -> int:
        """`bias` is an array; the other fields are those of the op."""
        stride, upsample = fields.get("stride", 1), fields.get("upsample", 1)
        _, height, width, _ = self.tensors[x[0]]
        out = self.tensor(
            len(weight),
            (height * upsample + pads[0] + pads[2] - weight.shape[2]) // stride + 1,
            (width * upsample + pads[1] + pads[3] - weight.shape[3]) // stride + 1,
        )
        if fields.get("bias") is not None:
            fields["bias"] = self.weight(fields["bias"])
        options = {"stride": 1, "upsample": 1, "tactic": "direct"} | fields
        return self.op("conv", x=x, out=out, weight=self.weight(weight), pads=list(pads), **options)

    def norm(self, x: list[int], groups: int, gamma: ArrayLike, beta: ArrayLike, **fields: Any) -> int:
        channels = sum(self.tensors[i][0] for i in x)
        out = self.tensor(channels, *self.tensors[x[0]][1:])
        options = {"epsilon": 1e-5, "silu": False} | fields
        weights = {"gamma": self.weight(gamma), "beta": self.weight(beta)}
        return self.op("group_norm", x=x, out=out, groups=groups, **weights, **options)

    def linear(self, x: int, weight: Array, bias: ArrayLike | None = None) -> int:
        fields = {"weight": self.weight(weight), "bias": None if bias is None else self.weight(bias)}
        return self.op("linear", x=x, out=self.tensor(len(weight), shared=self.tensors[x][3]), **fields)

    def timestep(self, channels: int = 4) -> int:
        frequencies = self.weight(np.geomspace(1, 0.01, channels))
        turns = self.weight(np.arange(channels) % 2)
        out = self.tensor(channels, shared=True)
        return self.op("timestep", out=out, frequencies=frequencies, quarter_turns=turns, scale=1.0)

    def shared_vector(self, values: Array) -> int:
        """Any values: the bias of a linear layer without weight on the timestep."""
        return self.linear(self.timestep(), np.zeros((len(values), 4)), values)

    def vectors(self, values: Array) -> int:
        """(B, C): a vector for each image, by its label."""
        return self.op("embedding", out=self.tensor(values.shape[1]), table=self.weight(values))

    def maps(self, *arrays: Array) -> list[int]:
        """Tensors of any values (finite, B x C x h x w): parts of one image, picked by convolutions with ones."""
        picked, first = [], 0
        image = self.image()
        channels, height, width, _ = self.tensors[image]
        for array in arrays:
            _, c, h, w = array.shape
            if array.shape[1:] == (channels, height, width):
                return [image]
            kernel = np.zeros((c, channels, height - h + 1, width - w + 1), np.float32)
            kernel[range(c), range(first, first + c), 0, 0] = 1
            picked.append(self.conv([image], kernel))
            first += c
        return picked

    def checked(self) -> _native.Program:
        return _native.Program(
            shape=self.x.shape[1:],
            out_channels=self.out_channels,
            tensors=self.tensors,
            weights=self.weights,
            ops=self.ops,
            sources=[self.source],
        )

    def native(self, threads: int = 1) -> _native.Program:
        program = self.checked()
        program.pack(threads=threads)
        return program

    def bind(self, threads: int = 1, native: _native.Program | None = None) -> tuple[_native.Network, Array]:
        """The network, and its output, which a call fills."""
        output = np.full((self.batch, self.out_channels, *self.x.shape[2:]), 7e7, np.float32)
        network = _native.Network(
            native or self.native(threads),
            network_input=self.x,
            network_time=np.array([self.t], np.float32),
            network_labels=np.arange(self.batch) if self.labels is None else self.labels,
            network_output=output,
            threads=threads,
        )
        return network, output

    def run(self, threads: int = 1) -> Array:
        """The second of two runs: nothing may be left over from the first."""
        network, output = self.bind(threads)
        network()
        network()
        return output


def side_by_side(*arrays: Array) -> Array:
    """The image that `Program.maps` takes apart again."""
    height, width = (max(array.shape[axis] for array in arrays) for axis in (2, 3))
    grow = [np.pad(a, ((0, 0), (0, 0), (0, height - a.shape[2]), (0, width - a.shape[3]))) for a in arrays]
    return np.concatenate(grow, axis=1)


def fit_output(program: Program, tensor: int) -> Program:
    """Pads a map to the image's size, which the output must have; `corner` cuts it off again."""
    channels, height, width, _ = program.tensors[tensor]
    down, right = program.x.shape[2] - height, program.x.shape[3] - width
    if down or right:
        ones = np.eye(channels, dtype=np.float32)[:, :, None, None]
        tensor = program.conv([tensor], ones, (0, 0, down, right))
    return program.output(tensor)


def agree(name: str, y: Array, exact: Array, size: ArrayLike, tolerance: float) -> None:
    """|y - exact| <= tolerance * size; `name` says what was computed."""
    assert np.isfinite(y).all(), name
    error = float(np.max(np.abs(y - exact) / size))
    assert error <= tolerance, f"{name}: error {error:.2e}"


def refused(program: Program, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        program.native()
