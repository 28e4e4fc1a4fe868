"""The random chains of the CPU's tests, on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit.chain_cases import Case, assert_same_bits
from pysdk import _native, _testing

Float = NDArray[np.float32]


def begin(chain: _native.CudaChain, case: Case, **changes: Any) -> None:
    arguments = {
        "table": case.table.native,
        "seeds": case.seeds,
        "images": case.images,
        "labels": case.labels,
        "guidance": case.guidance,
        "initial": case.initial,
        "known": case.known,
        "keep": None if case.keep is None else case.keep.astype(np.uint8) * 3,
    }
    chain.begin(**{**arguments, **changes})


def make_chain(device: _native.Device, case: Case, path: str) -> _native.CudaChain:
    return _native.CudaChain(
        device,
        batch=case.batch,
        shape=case.shape,
        out_channels=case.outputs.shape[2],
        guided=case.guidance is not None,
        path=path,
    )


@dataclass
class Played:
    """A chain on a simulated device whose networks play the outputs of a case, and what they were called for.

    Attributes:
        calls: "full 3" for the network at row 3, "half"; those of warming up come first.
        inputs: what the network was shown in each of them.
    """

    case: Case
    chain: _native.CudaChain
    half: bool
    calls: list[str] = field(default_factory=list)
    inputs: list[Float] = field(default_factory=list)

    def expected_calls(self) -> list[str]:
        """Row by row, as the table says."""
        column, names = self.case.table.column, []
        for k in range(len(self.case.table)):
            if not column("skip")[k]:
                names.append(f"half {k}" if self.half and column("unguided")[k] else f"full {k}")
        return names

    def assert_equals_reference(self) -> None:
        state, inputs = self.case.reference()
        assert_same_bits(self.chain.x.numpy(), state.x)
        assert_same_bits(self.chain.denoised.numpy(), state.d1)
        expected = self.expected_calls()
        first = len(self.calls) - len(expected)
        assert self.calls[first:] == expected
        for name, got, wanted in zip(expected, self.inputs[first:], inputs, strict=True):
            count = self.case.batch if name.startswith("half") else len(wanted)
            assert_same_bits(got[:count], wanted[:count])


def play(device: _testing.SimulatedDevice, case: Case, path: str = "auto", *, half: bool = False) -> Played:
    """A chain that has begun. Memory of this device is the host's, so numpy writes to the chain's own buffers."""
    chain = make_chain(device, case, path)
    played = Played(case, chain, half)
    shown, time, output = (
        np.from_dlpack(array) for array in (chain.network_input, chain.network_time, chain.network_output)
    )

    def network(name: str, count: int) -> Callable[[int], None]:
        def work() -> None:
            k = chain.position
            assert time[0] == np.float32(case.table.column("t")[k])
            output[:count] = case.outputs[k][:count]
            played.calls.append(f"{name} {k}")
            played.inputs.append(shown.copy())

        return lambda stream: device.call(stream, name, work)

    chain.attach(
        network("full", len(output)),
        conditional=network("half", case.batch) if half else None,
    )
    begin(chain, case)
    return played
