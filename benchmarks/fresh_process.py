"""One engine in a process of its own: `python -m benchmarks.fresh_process KIND SOURCE --batch 16 --threads 2`.

Prints {"ready": seconds from the file to a network that can be called, imports not counted, "peak": bytes of memory
that were resident at once after a step}.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import click

Work = Callable[[], object]
Load = Callable[[], Work]
KINDS: dict[str, Callable[[str, int, int], Load]] = {}


def kind(name: str) -> Callable[[Callable[[str, int, int], Load]], Callable[[str, int, int], Load]]:
    """Registers what imports all it needs and returns what loads SOURCE and returns one step."""

    def register(make: Callable[[str, int, int], Load]) -> Callable[[str, int, int], Load]:
        KINDS[name] = make
        return make

    return register


@kind("pysdk")
def native(plan: str, batch: int, threads: int) -> Load:
    """SOURCE is a plan."""
    from pysdk import Plan, _native
    from pysdk.engines import choice, registry

    registry.on_cpu("native")  # imports it

    def load() -> Work:
        opened = Plan.open(plan)
        info, _ = choice.choose(opened, "native")
        engine = registry.load(opened, info, threads)
        model = opened.manifest.model
        chain = _native.Chain(batch=batch, shape=model.shape, out_channels=model.out_channels, threads=threads)
        network = engine.bind(chain)
        return lambda: (network(), chain)  # both live as long as the step

    return load


@kind("onnxruntime")
def onnxruntime(onnx: str, batch: int, threads: int) -> Load:
    """SOURCE is an ONNX file."""
    import numpy as np
    import onnxruntime as ort

    def load() -> Work:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        x = np.zeros((batch, *session.get_inputs()[0].shape[1:]), np.float32)
        return lambda: session.run(None, {"x": x, "t": np.zeros(1, np.float32)})

    return load


@kind("OpenVINO latency")
def openvino(onnx: str, batch: int, threads: int) -> Load:
    """SOURCE is an ONNX file."""
    import numpy as np
    import openvino as ov

    def load() -> Work:
        core = ov.Core()
        model = core.read_model(onnx)
        shape = [batch, *(size.get_length() for size in list(model.input("x").partial_shape)[1:])]
        model.reshape({"x": shape, "t": [1]})
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        x = np.zeros(shape, np.float32)
        return lambda: request.infer({"x": x, "t": np.zeros(1, np.float32)})

    return load


@kind("torch eager")
def torch_eager(folder: str, batch: int, threads: int) -> Load:
    """SOURCE is a folder of diffusers' UNet2DModel."""
    import torch
    from diffusers import UNet2DModel

    torch.set_num_threads(threads)

    def load() -> Work:
        unet = UNet2DModel.from_pretrained(folder).eval()
        size = unet.config.sample_size
        x = torch.zeros(batch, unet.config.in_channels, size, size)

        def step() -> object:
            with torch.inference_mode():
                return unet(x, 0).sample

        return step

    return load


def peak(process: str = "self") -> int:
    """Most bytes a process had in memory at once, which only Linux counts from the start of the program."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@click.command()
@click.argument("name", type=click.Choice(list(KINDS)))
@click.argument("source")
@click.option("--batch", type=int, required=True)
@click.option("--threads", type=int, required=True)
def main(name: str, source: str, batch: int, threads: int) -> None:
    """Load SOURCE, run one step, print what it took."""
    load = KINDS[name](source, batch, threads)
    start = time.perf_counter()
    step = load()
    ready = time.perf_counter() - start
    step()
    click.echo(json.dumps({"ready": ready, "peak": peak()}))


if __name__ == "__main__":
    main()
