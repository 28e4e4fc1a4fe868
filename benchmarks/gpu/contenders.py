"""Who is measured on a GPU: our chain, diffusers' pipelines, and a loop written by hand under CUDA graphs.

Each is a function that draws one batch and returns when it is done; all take the same number of network calls on a
float32 sample, DDIM (eta 0) unless their name says DDPM.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.subjects import Subject
from benchmarks.workload import BUILT
from pysdk import Plan
from pysdk.diffusion.schedule import Schedule
from pysdk.engines.tensorrt import libraries
from pysdk.machine.devices import open_device
from pysdk.request.request import Request
from pysdk.runtime import cuda
from pysdk.runtime.cuda import CudaExecutor, Launch
from pysdk.runtime.torch_network import TorchNetwork
from pysdk.solvers import make_table

Work = Callable[[], object]
SCHEDULE = Schedule.linear()
REPLAY = "network replay"
MODES = ("default", "reduce-overhead", "max-autotune")


class Setting:
    """A subject at one batch size, its network compiled once for each mode.

    Attributes:
        seconds: that compiling took in each mode, the first run included.
    """

    def __init__(self, subject: Subject, batch: int) -> None:
        self.subject, self.batch = subject, batch
        self.seconds: dict[str, float] = {}
        self._compiled: dict[str, nn.Module | Exception] = {}

    def network(self, mode: str | None) -> nn.Module:
        """As it is for None, else compiled; whatever the compiler raises is raised each time."""
        if mode is None:
            return self.subject.network
        if mode not in self._compiled:
            start = time.perf_counter()
            self._compiled[mode] = self._compile(mode)
            self.seconds[mode] = time.perf_counter() - start
        found = self._compiled[mode]
        if isinstance(found, Exception):
            raise found
        return found

    def _compile(self, mode: str) -> nn.Module | Exception:
        try:
            made: nn.Module = torch.compile(self.subject.network, mode=mode, dynamic=False)  # type: ignore[assignment]
            with torch.no_grad():
                made(*self.subject.inputs(self.batch))
            torch.cuda.synchronize()
        except Exception as error:
            return error
        return made


@dataclass(frozen=True)
class Contender:
    """One of those measured.

    Attributes:
        make: from a setting, its network in the form `mode`, and a number of steps.
        mode: torch.compile's; None for the network as it is.
        base: the contender that is this one's network alone.
    """

    name: str
    make: Callable[[Setting, nn.Module, int], Work]
    mode: str | None = None
    base: str | None = None


def contenders(modes: list[str]) -> tuple[list[Contender], list[str]]:
    """Those that can run here, the most telling first, and a sentence on each kind that cannot."""
    found, missing = _ours(None), []
    if "default" in modes:
        found += _ours("default")
    if "max-autotune" in modes:
        found += _ours("max-autotune-no-cudagraphs")
    found.append(Contender("pysdk, a launch per step", partial(ours, launch="step"), base=REPLAY))
    if libraries.installed():
        found.append(Contender("pysdk, TensorRT bf16 network", tensorrt))
    else:
        missing.append("pysdk with TensorRT: neither tensorrt nor tensorrt_rtx is installed")
    try:
        from diffusers import DDIMPipeline, DDPMPipeline  # noqa: F401  here, so that nobody's first batch has its import
    except Exception as error:  # not installed, or not with the other packages here
        return found, [*missing, f"all pipelines of diffusers: {str(error).splitlines()[0]} (pip install diffusers)"]
    for mode in (None, *(mode for mode in modes if mode != "default")):
        for kind in ("DDIM", "DDPM"):
            name = f"diffusers {kind}" + ("" if mode is None else f", torch.compile {mode}")
            found.append(Contender(name, partial(pipeline, kind=kind), mode, None if mode else REPLAY))
    return found, missing


def _ours(mode: str | None) -> list[Contender]:
    network = {None: "eager", "default": "compiled"}.get(mode, "max-autotune")
    base = REPLAY if mode is None else f"{REPLAY}, {network}"
    return [
        Contender(base, network_replay, mode),
        Contender(f"pysdk, {network} network", ours, mode, base),
        Contender(f"hand-written CUDA graph, {network} network", hand_written, mode, base),
    ]


def ours(setting: Setting, network: nn.Module, steps: int, launch: Launch = "auto") -> Work:
    """Our chain around a torch network; the images stay on the device."""
    model = setting.subject.model
    made = CudaExecutor(model, TorchNetwork(network, model, 0), open_device(0), batch_size=setting.batch, launch=launch)
    return _chain(made, setting, steps)


def tensorrt(setting: Setting, _network: nn.Module, steps: int) -> Work:
    """Our chain around a TensorRT engine of the same weights in bf16, built for this batch."""
    from pysdk.export.build import build
    from pysdk.export.settings import TensorrtOptions

    batch, path = setting.batch, BUILT / f"{setting.subject.name}-batch{setting.batch}-tensorrt.plan"
    build(
        setting.subject.checkpoint,
        path,
        batch_size=batch,
        engine="tensorrt",
        tensorrt=TensorrtOptions(precision="bfloat16", batch_profile=(batch, batch, batch)),
        check_seconds=0,
    )
    with Plan.open(path) as plan:
        made, _, _ = cuda.load(plan, "tensorrt", number=0, network=None, batch_size=batch, launch="auto")
    return _chain(made, setting, steps)


def _chain(made: CudaExecutor, setting: Setting, steps: int) -> Work:
    labels = setting.subject.labels(setting.batch)
    request = Request(
        table=make_table("ddim", SCHEDULE, steps=steps, prediction_type=setting.subject.model.prediction_type),
        seeds=np.zeros(setting.batch, np.uint64),
        images=np.arange(setting.batch, dtype=np.uint64),
        labels=None if labels is None else labels.cpu().numpy(),
        guidance=None,
    )
    return lambda: made.images(request, "dlpack", progress=False)


def network_replay(setting: Setting, network: nn.Module, steps: int) -> Work:
    """The network alone, `steps` replays of a CUDA graph: what no chain around it can beat."""
    inputs = setting.subject.inputs(setting.batch)
    graph = _captured(lambda: network(*inputs))

    def work() -> None:
        for _ in range(steps):
            graph.replay()
        torch.cuda.synchronize()

    return work


def hand_written(setting: Setting, network: nn.Module, steps: int) -> Work:
    """One step, network and DDIM update in torch, captured once and replayed `steps` times."""
    table = make_table("ddim", SCHEDULE, steps=steps, prediction_type="epsilon")
    abar = SCHEDULE.alphas_cumprod[table.timesteps.astype(int)]
    columns = np.stack([table.timesteps, np.sqrt(abar), np.sqrt(1 - abar)])
    t, s, n = torch.from_numpy(columns.astype(np.float32)).cuda()
    following = torch.cat([s[1:], s.new_ones(1)]), torch.cat([n[1:], n.new_zeros(1)])
    x, _, *labels = setting.subject.inputs(setting.batch)
    row = torch.zeros(1, dtype=torch.int64, device="cuda")

    def step() -> None:
        f = network(x, t[row], *labels)[:, : x.shape[1]]
        denoised = ((x - n[row] * f) / s[row]).clamp(-1, 1)
        x.copy_(following[0][row] * denoised + following[1][row] * f)
        row.add_(1).remainder_(steps)

    graph = _captured(step)

    def work() -> Tensor:
        row.zero_()
        x.normal_()
        for _ in range(steps):
            graph.replay()
        torch.cuda.synchronize()
        return x

    return work


class PipelineUnet(nn.Module):
    """What a diffusers pipeline asks of its network, around one of ours."""

    dtype = torch.float32

    def __init__(self, setting: Setting, network: nn.Module) -> None:
        super().__init__()
        channels, height, width = setting.subject.model.shape
        self.config = SimpleNamespace(sample_size=(height, width), in_channels=channels)
        self.network, self.channels = network, channels
        _, _, *self.labels = setting.subject.inputs(setting.batch)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, sample: Tensor, timestep: Tensor) -> SimpleNamespace:
        t = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device).reshape(1)
        return SimpleNamespace(sample=self.network(sample, t, *self.labels)[:, : self.channels])


def pipeline(setting: Setting, network: nn.Module, steps: int, kind: str) -> Work:
    """diffusers' DDIMPipeline or DDPMPipeline; their images end on the host, as theirs do."""
    import diffusers

    betas = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    scheduler = getattr(diffusers, f"{kind}Scheduler")(**betas)
    made = getattr(diffusers, f"{kind}Pipeline")(unet=PipelineUnet(setting, network), scheduler=scheduler)
    made.set_progress_bar_config(disable=True)
    return lambda: made(batch_size=setting.batch, num_inference_steps=steps, output_type="np").images


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
    seconds: float = start.elapsed_time(end) / 1000
    return 2 * size**3 * repeats / seconds


def _captured(work: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        work()
    return graph
