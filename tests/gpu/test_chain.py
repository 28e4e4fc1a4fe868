"""The device chain as a whole: against torch, against the CPU, and how it behaves."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.chain_cases import assert_same_bits
from kit.cuda.on_gpu import MODEL, smooth_chain
from kit.processes import IMPORTS

from pysdk import Sampler, _native, noise
from pysdk.diffusion import numpy_chain
from pysdk.diffusion.schedule import Schedule
from pysdk.errors import DeviceError
from pysdk.solvers import make_table


def network_of(torch: Any, checkpoint: Path) -> Any:
    from pysdk.training.checkpoint import load_model

    return load_model(checkpoint)[1].cuda()


@pytest.fixture
def on_gpu(torch: Any, conditional_plan: Path, conditional_checkpoint: Path) -> Any:
    with Sampler(conditional_plan, device="cuda", network=network_of(torch, conditional_checkpoint)) as sampler:
        yield sampler


def test_the_whole_chain_equals_a_torch_loop(torch: Any, device: _native.Device) -> None:
    """DDPM written out in torch from the schedule, with the noise of the gallery; 50 steps, same network calls."""
    schedule = Schedule.linear()
    network = lambda x, t: 0.5 * torch.tanh(x) + 1e-4 * t  # noqa: E731
    chain, start = smooth_chain(torch, device, network)
    start(seed=3)
    chain.advance(99)
    table = make_table("ddpm", schedule, steps=50)
    draw = lambda k: torch.from_numpy(noise.normal(3, np.arange(4), k, MODEL.shape)).cuda()  # noqa: E731
    x, visited = draw(0), [int(t) for t in table.timesteps]
    for k, t in enumerate(visited):
        # Python's floats: numpy's would try to read the tensors they are multiplied with
        abar = float(schedule.alphas_cumprod[t])
        before = float(schedule.alphas_cumprod[visited[k + 1]]) if k + 1 < len(visited) else 1.0
        beta = 1 - abar / before
        eps = network(x, torch.full((1,), float(t), device="cuda"))
        estimate = ((x - (1 - abar) ** 0.5 * eps) / abar**0.5).clamp(-1, 1)
        x = (1 - beta) ** 0.5 * (1 - before) / (1 - abar) * x + before**0.5 * beta / (1 - abar) * estimate
        if k + 1 < len(visited):
            x = x + (beta * (1 - before) / (1 - abar)) ** 0.5 * draw(k + 1)
    np.testing.assert_allclose(chain.x.numpy(), x.cpu().numpy(), atol=2e-5)
    state = numpy_chain.run(
        table,
        lambda x, t, _labels: (
            network(torch.from_numpy(x).cuda(), torch.tensor([float(t)], device="cuda")).cpu().numpy()
        ),
        shape=MODEL.shape,
        seeds=3,
        images=np.arange(4),
    )
    assert_same_bits(chain.x.numpy(), state.x)


@pytest.mark.parametrize("guidance_scale", [None, 2.0])
def test_the_same_image_on_cpu_and_gpu(conditional: Sampler, on_gpu: Sampler, guidance_scale: float | None) -> None:
    """Engines add in another order, so a 50-step chain may differ by 1e-3 of the range, and a byte by 1."""
    arguments = {"seed": 5, "guidance_scale": guidance_scale}
    cpu = conditional.sample(6, output="float32", **arguments)
    np.testing.assert_allclose(on_gpu.sample(6, output="float32", **arguments), cpu, atol=2e-3)
    difference = on_gpu.sample(6, **arguments).astype(int) - conditional.sample(6, **arguments)
    assert np.abs(difference).max() <= 1
    assert "one launch per chain" in on_gpu.info["running"]["chain"]


def test_any_split_gives_the_same_images(on_gpu: Sampler) -> None:
    whole = on_gpu.sample(9, steps=10)
    np.testing.assert_array_equal(on_gpu.sample(1, start=7, steps=10)[0], whole[7])


def test_dlpack_is_torch_memory_without_a_copy(torch: Any, on_gpu: Sampler) -> None:
    made = on_gpu.sample(6, steps=5, output="dlpack")
    tensor = torch.from_dlpack(made)
    assert tensor.device.type == "cuda"
    assert tensor.data_ptr() == made.pointer
    wanted = on_gpu.sample(6, steps=5, output="float32")
    with torch.cuda.stream(torch.cuda.Stream()):
        assert torch.equal(torch.from_dlpack(made).cpu(), torch.from_numpy(wanted))
    del made
    gc.collect()
    on_gpu.sample(6, steps=5, seed=9, output="dlpack")
    assert torch.equal(tensor.cpu(), torch.from_numpy(wanted)), "the tensor keeps its memory"


def test_previews_while_the_chain_runs(on_gpu: Sampler) -> None:
    shown = list(on_gpu.stream(6, steps=40, every=3, output="float32"))
    assert [preview.step for preview in shown] == [*range(3, 40, 3), 40]
    np.testing.assert_array_equal(shown[-1].x, on_gpu.sample(6, steps=40, output="float32"))


def test_progress_counts_during_one_launch(torch: Any, device: _native.Device) -> None:
    weights = torch.randn(4096, 4096, device="cuda") / 64
    chain, start = smooth_chain(torch, device, lambda x, t: x * 0.1 + 1e-9 * (weights @ weights).mean(), steps=1000)
    start()
    chain.launch(1000)
    seen = {chain.wait(1000, 0.005) for _ in range(400)}
    assert chain.wait(1000) == 1000
    assert len(seen) > 3


def test_a_network_that_synchronises_is_called_plainly_and_that_is_said(torch: Any, device: _native.Device) -> None:
    network = lambda x, t: 0.1 * x * float(t.item() > 0)  # noqa: E731
    chain, start = smooth_chain(torch, device, network, steps=5)
    start()
    assert chain.advance(5) == 5
    assert chain.path == "plain"
    assert "cannot be captured" in chain.why
    forced, start = smooth_chain(torch, device, network, steps=5, path="while")
    start()
    with pytest.raises(_native.CaptureError, match="cannot be captured"):
        forced.advance(5)
    after, start = smooth_chain(torch, device, steps=5)  # the refusal left nothing behind
    start()
    assert (after.advance(5), after.path) == (5, "while")


def test_ctrl_c_ends_a_chain_in_one_launch(torch: Any, device: _native.Device) -> None:
    weights = torch.randn(6144, 6144, device="cuda") / 78
    chain, start = smooth_chain(torch, device, lambda x, t: x * 0.1 + 1e-9 * (weights @ weights).mean(), steps=1000)
    start()
    chain.advance(1)  # captured
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            chain.advance(1000)
    finally:
        timer.cancel()  # after a failure it would end the whole test run
    assert 1 < chain.position < 1000
    assert chain.advance(1000) == 1000


def test_memory_that_runs_out_is_named(on_gpu: Sampler, device: _native.Device) -> None:
    on_gpu.sample(1, steps=2)
    hog = device.empty(((device.memory[0] - (2 << 30)) // 4,), "float32")
    missing = r"has no room for \d+ MiB: \d+ of \d+ MiB are free; use a smaller batch_size"
    with pytest.raises(MemoryError, match=missing):
        _native.CudaChain(device, batch=2048, shape=(3, 512, 512))
    with pytest.raises(DeviceError, match=missing):
        on_gpu.sample(2**24, steps=2, output="dlpack")
    del hog
    assert len(on_gpu.sample(1, steps=2)) == 1


def test_samplers_on_several_streams_do_not_disturb_each_other(on_gpu: Sampler) -> None:
    wanted = [on_gpu.sample(6, steps=20, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda seed: on_gpu.sample(6, steps=20, seed=seed), range(8)))
    for got, expected in zip(made, wanted, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_the_second_device(torch: Any, conditional_plan: Path, conditional_checkpoint: Path, on_gpu: Sampler) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("this machine has one CUDA device")
    network = network_of(torch, conditional_checkpoint).to("cuda:1")
    with Sampler(conditional_plan, device="cuda:1", network=network) as second:
        np.testing.assert_array_equal(second.sample(4, steps=10), on_gpu.sample(4, steps=10))


def test_no_allocation_and_no_wait_inside_the_chain(torch: Any, device: _native.Device) -> None:
    """In a process of its own: the profiler has been seen to crash on graphs with loops (pytorch/pytorch#134308)."""
    chain, start = smooth_chain(torch, device, steps=200)
    start()
    chain.advance(200)
    free = device.memory[0]
    start()
    chain.advance(200)
    assert device.memory[0] == free
    done = subprocess.run(
        [sys.executable, "-m", "kit.cuda.profiled_chain"],
        env=os.environ | IMPORTS,
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    calls = json.loads(done.stdout.splitlines()[-1])
    if not calls:
        pytest.skip("torch's profiler sees no calls of CUDA on this machine")
    assert calls.count("cudaGraphLaunch") == 1, calls
    forbidden = re.compile("Malloc|HostAlloc|Free|Synchronize|LaunchKernel|LaunchCooperative|Instantiate|Memcpy")
    assert not [name for name in calls if forbidden.search(name)]


def test_ten_thousand_samples_without_growth(on_gpu: Sampler, device: _native.Device) -> None:
    on_gpu.sample(100, steps=2)
    free, done = device.memory[0], 0
    while done < 10_000:
        done += len(on_gpu.sample(100, start=done, steps=2))
    assert device.memory[0] >= free - (2 << 20)


def test_chains_that_come_and_go_leave_nothing(on_gpu: Sampler, device: _native.Device) -> None:
    """Each preview has a chain of its own, with a stream, and torch keeps memory for every stream it has seen."""
    watch = lambda: sum(1 for _ in on_gpu.stream(2, steps=4, every=2))  # noqa: E731
    for _ in range(5):
        watch()
    free = device.memory[0]
    for _ in range(30):
        watch()
    assert device.memory[0] >= free - (64 << 20)


@pytest.mark.parametrize("paths", ["while", "step,plain"])
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool: str, paths: str) -> None:
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    command = [
        sanitizer,
        "--tool",
        tool,
        "--error-exitcode",
        "9",
        sys.executable,
        "-m",
        "kit.cuda.sanitized_chain",
        paths,
    ]
    done = subprocess.run(command, env=os.environ | IMPORTS, capture_output=True, text=True, check=False, timeout=180)
    if "Device not supported" in done.stdout + done.stderr:
        pytest.skip("compute-sanitizer does not support this device")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "rows ran" in done.stdout
