"""Chains on a GPU with torch networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from kit.chain_cases import Case
from kit.cuda.device_cases import begin, make_chain
from pysdk import _native
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import STEP_COLUMNS
from pysdk.plan.manifest import ModelInfo
from pysdk.runtime.torch_network import TorchNetwork
from pysdk.solvers import make_table

MODEL = ModelInfo(name="test", shape=(3, 16, 16), out_channels=3)


def play_on_gpu(torch: Any, device: _native.Device, case: Case, path: str, *, half: bool = False) -> _native.CudaChain:
    """A chain that has begun, whose networks play the outputs of a case. They find the row by its time."""
    rows = case.table.rows.copy()
    rows[:, STEP_COLUMNS.index("t")] = np.arange(len(rows))[::-1]
    case.table = dataclasses.replace(case.table, rows=rows)
    chain = make_chain(device, case, path)
    time = torch.from_dlpack(chain.network_time)
    last, pool = len(rows) - 1, torch.cuda.MemPool()

    def player(values: Any, to: Any) -> Callable[[int], None]:
        played = torch.from_numpy(np.ascontiguousarray(values)).cuda()

        def enqueue(stream: int) -> None:
            with torch.no_grad(), torch.cuda.use_mem_pool(pool), torch.cuda.stream(torch.cuda.ExternalStream(stream)):
                row = (last - time).to(torch.int64)
                torch.index_select(played, 0, row, out=to.unsqueeze(0))

        return enqueue

    output = torch.from_dlpack(chain.network_output)
    chain.attach(
        player(case.outputs, output),
        conditional=player(case.outputs[:, : case.batch], output[: case.batch]) if half else None,
    )
    begin(chain, case)
    return chain


def small_network(torch: Any) -> Any:
    """A module (x, t) -> output of two convolutions, the same weights every time."""

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Conv2d(3, 32, 3, padding=1)
            self.outer = torch.nn.Conv2d(32, 3, 3, padding=1)

        def forward(self, x: Any, t: Any) -> Any:
            return self.outer(torch.nn.functional.silu(self.inner(x))) + 1e-4 * t

    torch.manual_seed(0)
    return Network().cuda().eval()


def smooth_chain(
    torch: Any, device: _native.Device, network: Any = None, *, batch: int = 4, steps: int = 50, path: str = "auto"
) -> tuple[_native.CudaChain, Callable[..., None]]:
    """A DDPM chain on 3x16x16 images around a network, by default a pointwise one, and what begins it."""
    chain = _native.CudaChain(device, batch=batch, shape=MODEL.shape, path=path)
    if network is None:  # a compiled module has no truth value
        network = lambda x, t: 0.5 * torch.tanh(x) + 1e-4 * t  # noqa: E731
    chain.attach(TorchNetwork(network, MODEL, 0).bind(chain))
    table = make_table("ddpm", Schedule.linear(), steps=steps)

    def start(seed: int = 0) -> None:
        chain.begin(
            table.native,
            seeds=np.full(batch, seed, np.uint64),
            images=np.arange(batch, dtype=np.uint64),
        )

    return chain, start
