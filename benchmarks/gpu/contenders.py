"""Who is measured on a GPU: our chain, diffusers' pipelines, and a loop written by hand under CUDA graphs.

Each is a function that draws one batch and returns when it is done; all take DDIM steps (eta 0) on a float32 sample.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.subjects import Subject
from pysdk.cuda import open_device
from pysdk.cuda.executor import CudaExecutor, Launch
from pysdk.cuda.torch_network import TorchNetwork
from pysdk.request import Request
from pysdk.schedule import Schedule
from pysdk.solvers import make_table

Work = Callable[[], object]
SCHEDULE = Schedule.linear()


def ours(subject: Subject, network: nn.Module, batch: int, steps: int, launch: Launch = "auto") -> Work:
    """Our chain around a torch network; the images stay on the device."""
    executor = CudaExecutor(
        subject.model, TorchNetwork(network, subject.model, 0), open_device(0), batch_size=batch, launch=launch
    )
    labels = subject.labels(batch)
    request = Request(
        table=make_table("ddim", SCHEDULE, steps=steps, prediction_type=subject.model.prediction_type),
        seeds=np.zeros(batch, np.uint64),
        images=np.arange(batch, dtype=np.uint64),
        labels=None if labels is None else labels.cpu().numpy(),
        guidance=None,
    )
    return lambda: executor.images(request, "dlpack", progress=False)


def network_replay(subject: Subject, network: nn.Module, batch: int, steps: int) -> Work:
    """The network alone, `steps` replays of a CUDA graph: what no chain around it can beat."""
    x = torch.randn(batch, *subject.model.shape, device="cuda")
    t = torch.full((1,), 500.0, device="cuda")
    graph = _captured(lambda: _call(network, x, t, subject.labels(batch)))

    def work() -> None:
        for _ in range(steps):
            graph.replay()
        torch.cuda.synchronize()

    return work


def hand_written(subject: Subject, network: nn.Module, batch: int, steps: int) -> Work:
    """One step, network and DDIM update in torch, captured once and replayed `steps` times."""
    table = make_table("ddim", SCHEDULE, steps=steps, prediction_type="epsilon")
    abar = SCHEDULE.alphas_cumprod[table.timesteps.astype(int)]
    columns = np.stack([table.timesteps, np.sqrt(abar), np.sqrt(1 - abar)])
    t, s, n = torch.from_numpy(columns.astype(np.float32)).cuda()
    following = torch.cat([s[1:], s.new_ones(1)]), torch.cat([n[1:], n.new_zeros(1)])
    x = torch.empty(batch, *subject.model.shape, device="cuda")
    row = torch.zeros(1, dtype=torch.int64, device="cuda")

    def step() -> None:
        f = _call(network, x, t[row], subject.labels(batch))[:, : x.shape[1]]
        denoised = ((x - n[row] * f) / s[row]).clamp(-1, 1)
        x.copy_(following[0][row] * denoised + following[1][row] * f)
        row.add_(1).remainder_(steps)

    graph = _captured(step)

    def work() -> None:
        row.zero_()
        x.normal_()
        for _ in range(steps):
            graph.replay()
        torch.cuda.synchronize()

    return work


class PipelineUnet(nn.Module):
    """What a diffusers pipeline asks of its network, around one of ours."""

    dtype = torch.float32

    def __init__(self, subject: Subject, network: nn.Module, batch: int) -> None:
        super().__init__()
        channels, height, width = subject.model.shape
        self.config = SimpleNamespace(sample_size=(height, width), in_channels=channels)
        self.network, self.channels, self.labels = network, channels, subject.labels(batch)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, sample: Tensor, timestep: Tensor) -> SimpleNamespace:
        t = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device).reshape(1)
        return SimpleNamespace(sample=_call(self.network, sample, t, self.labels)[:, : self.channels])


def pipeline(subject: Subject, network: nn.Module, batch: int, steps: int, kind: str) -> Work:
    """diffusers' DDIMPipeline or DDPMPipeline; their images end on the host, as theirs do."""
    import diffusers

    betas = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    scheduler = getattr(diffusers, f"{kind}Scheduler")(**betas)
    made = getattr(diffusers, f"{kind}Pipeline")(unet=PipelineUnet(subject, network, batch), scheduler=scheduler)
    made.set_progress_bar_config(disable=True)
    return lambda: made(batch_size=batch, num_inference_steps=steps, output_type="np")


def matmul_ceiling(size: int = 8192, repeats: int = 30) -> float:
    """Measured bf16 operations per second of a square matrix product on random numbers."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    for _ in range(5):
        a @ a
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        a @ a
    end.record()
    torch.cuda.synchronize()
    return 2 * size**3 * repeats / (start.elapsed_time(end) / 1000)


def _call(network: nn.Module, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
    made: Any = network(x, t) if labels is None else network(x, t, labels)
    return made


def _captured(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        work()
    return graph
