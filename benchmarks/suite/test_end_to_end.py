"""Images from nothing: `Sampler.sample` beside stock diffusers pipelines on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleave import interleave
from benchmarks.peers import OnnxUnet, TorchUnet, ddim_pipeline
from benchmarks.workload import Workload
from pysdk import Sampler

STEPS, CHECKED = 50, 4
TOLERANCE = 0.02
"""Largest difference in a pixel's range of 1: rounding differs in 50 steps of three engines. The mean: a hundredth."""


@pytest.mark.benchmark(group="End to end, the peers in a stock DDIMPipeline")
def test_end_to_end(benchmark: BenchmarkFixture, workload: Workload, images: int) -> None:
    manifest = workload.plan.manifest
    sampler = Sampler(workload.path, threads=workload.threads)
    pipelines = {
        "torch eager": ddim_pipeline(TorchUnet(manifest, workload.checkpoint), manifest),
        "torch channels_last": ddim_pipeline(TorchUnet(manifest, workload.checkpoint, channels_last=True), manifest),
        "onnxruntime": ddim_pipeline(OnnxUnet(workload.plan, threads=workload.threads), manifest),
    }

    def draw(pipeline: Callable[..., Any]) -> object:
        return pipeline(batch_size=images, num_inference_steps=STEPS).images

    def ours() -> object:
        return sampler.sample(images, solver="ddim", steps=STEPS, output="pil", progress=False)

    for name, pipeline in pipelines.items():
        check(name, sampler, pipeline)
        pipeline(batch_size=images, num_inference_steps=2)
    sampler.sample(images, solver="ddim", steps=2, progress=False)
    interleave(
        benchmark,
        ours,
        {name: partial(draw, pipeline) for name, pipeline in pipelines.items()},
        seconds=0,
        rounds=(2, 2),  # the warm-up is the lines above: a whole round takes a minute
        warm_up=False,
        work=f"{images} images, DDIM, {STEPS} steps",
        unit="s",
    )


def check(name: str, sampler: Sampler, pipeline: Callable[..., Any]) -> None:
    """The same images from the same noise."""
    noise = torch.randn((CHECKED, *sampler.plan.manifest.model.shape), generator=torch.Generator().manual_seed(0))
    x = sampler.sample(
        CHECKED, solver="ddim", steps=STEPS, initial=noise.numpy(), output="float32", progress=False
    ).transpose(0, 2, 3, 1)
    expected = pipeline(
        batch_size=CHECKED,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    difference = np.abs((x / 2 + 0.5).clip(0, 1) - expected)
    assert difference.max() < TOLERANCE, f"{name} draws other images; was the plan built from this checkpoint?"
    assert difference.mean() < TOLERANCE / 100
