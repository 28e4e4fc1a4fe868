"""What runs one step of a network beside the native engine: each from the same weights, on as many threads."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.networks import BenchmarkNetwork, Inputs
from pysdk.distribution import install_extra, require
from pysdk.export.importers.diffusers.unet import EmbedOnce


class NotCompared(Exception):  # noqa: N818  # a remark in the result, no failure
    """Why a peer takes no part."""


@dataclass(frozen=True)
class Peer:
    """A call that runs the network `steps` times and returns the output of one of them."""

    run: Callable[[], NDArray[np.float32]]
    steps: int = 1


Make = Callable[[BenchmarkNetwork, Inputs, int], Peer]


def torch_eager(network: BenchmarkNetwork, inputs: Inputs, threads: int) -> Peer:
    """The module as it is."""
    return _torch(_module(network), inputs)


def torch_channels_last(network: BenchmarkNetwork, inputs: Inputs, threads: int) -> Peer:
    """Weights and input in that layout."""
    module = copy.deepcopy(_module(network)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _torch(module, inputs, memory_format=torch.channels_last)


def torch_compile(network: BenchmarkNetwork, inputs: Inputs, threads: int) -> Peer:
    """max-autotune, with the weights frozen into the code; the first call compiles, for minutes."""
    from torch._inductor import config

    torch.compiler.reset()  # it would make code for any batch once it has seen two
    module = torch.compile(_module(network), mode="max-autotune", fullgraph=True, dynamic=False)
    return _torch(module, inputs, lambda: config.patch(freezing=True))


def onnxruntime(network: BenchmarkNetwork, inputs: Inputs, threads: int) -> Peer:
    """`InferenceSession.run`; its threads stop spinning when a call ends, so that they do not slow down the next."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(network.onnx, options, providers=["CPUExecutionProvider"])
    feeds = inputs.named()
    return Peer(lambda: session.run(None, feeds)[0])


def openvino_latency(network: BenchmarkNetwork, inputs: Inputs, threads: int) -> Peer:
    """One request on all threads."""
    return _openvino(network, inputs, threads, "LATENCY")


def openvino_throughput(network: BenchmarkNetwork, inputs: Inputs, threads: int) -> Peer:
    """As many requests of the whole batch at once as it asks for; the time is that of all, shared out."""
    return _openvino(network, inputs, threads, "THROUGHPUT")


def ncnn(network: BenchmarkNetwork, inputs: Inputs, threads: int) -> Peer:
    """Through pnnx, in float32; it knows no batch."""
    if len(inputs.x) > 1:
        raise NotCompared("takes one image at a time")
    _need("ncnn")
    _need("pnnx")
    import ncnn as library

    files = network.folder / "ncnn"
    if not files.is_dir():
        _convert(network, inputs)
    net = library.Net()
    net.opt.num_threads = threads
    for option in ("use_fp16_storage", "use_fp16_packed", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    if net.load_param(str(files / "network.ncnn.param")) or net.load_model(str(files / "network.ncnn.bin")):
        raise NotCompared("cannot load what pnnx made")
    arrays = [inputs.x[0], inputs.t, *([] if inputs.labels is None else [inputs.labels.astype(np.int32)])]
    mats = [library.Mat(array) for array in arrays]

    def run() -> NDArray[np.float32]:
        extractor = net.create_extractor()
        for index, mat in enumerate(mats):
            extractor.input(f"in{index}", mat)
        code, output = extractor.extract("out0")
        if code:
            raise NotCompared(f"fails with code {code}")
        return np.array(output)[None]

    return Peer(run)


def peers(*, compiled: bool) -> dict[str, Make]:
    """All peers by name."""
    found: dict[str, Make] = {
        "torch eager": torch_eager,
        "torch channels_last": torch_channels_last,
        "onnxruntime": onnxruntime,
        "OpenVINO latency": openvino_latency,
        "OpenVINO throughput": openvino_throughput,
        "ncnn": ncnn,
    }
    return found | ({"torch.compile": torch_compile} if compiled else {})


def _module(network: BenchmarkNetwork) -> nn.Module:
    module = network.network.module
    assert module is not None
    return module


def _torch(
    module: Callable[..., torch.Tensor],
    inputs: Inputs,
    settings: Callable[[], AbstractContextManager[object]] = nullcontext,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Peer:
    x = torch.from_numpy(inputs.x).contiguous(memory_format=memory_format)
    rest = [torch.from_numpy(array) for name, array in inputs.named().items() if name != "x"]

    def run() -> NDArray[np.float32]:
        with torch.inference_mode(), settings():
            output: NDArray[np.float32] = module(x, *rest).numpy()
        return output

    return Peer(run)


def _openvino(network: BenchmarkNetwork, inputs: Inputs, threads: int, hint: str) -> Peer:
    _need("openvino")
    import openvino

    core = openvino.Core()
    model = core.read_model(network.onnx)
    feeds = inputs.named()
    model.reshape({name: list(array.shape) for name, array in feeds.items()})
    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", settings)
    count = 1 if hint == "LATENCY" else compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    requests = [compiled.create_infer_request() for _ in range(count)]

    def run() -> NDArray[np.float32]:
        if count == 1:
            requests[0].infer(feeds)
        else:
            for request in requests:
                request.start_async(feeds)
            for request in requests:
                request.wait()
        output: NDArray[np.float32] = requests[0].get_output_tensor(0).data
        return output

    return Peer(run, count)


def _convert(network: BenchmarkNetwork, inputs: Inputs) -> None:
    import pnnx

    partial = network.folder / "ncnn.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    tensors = tuple(torch.from_numpy(array) for array in inputs.named().values())
    module = _module(network)
    if isinstance(module, EmbedOnce):  # ncnn cannot run what that does to t
        module = _Stock(network.source)
    try:
        with torch.no_grad():
            pnnx.export(module, str(partial / "network.pt"), tensors, fp16=False, check_trace=False)
    except Exception as error:  # tracing and pnnx raise what they like
        raise NotCompared(f"pnnx cannot convert the network: {' '.join(str(error).split())[:100]}") from error
    if not (partial / "network.ncnn.bin").is_file():
        raise NotCompared("pnnx cannot convert the network")
    for path in partial.iterdir():
        if ".ncnn." not in path.name:
            path.unlink()
    partial.rename(network.folder / "ncnn")


class _Stock(nn.Module):
    """A UNet2DModel as diffusers has it, which returns a tensor."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.unet = UNet2DModel.from_pretrained(folder)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.unet(x, t, return_dict=False)[0]
        return output


def _need(package: str) -> None:
    try:
        require(package, install_extra("peers"))
    except ImportError as error:
        raise NotCompared("not installed") from error
