"""The sampler on a simulated device with the plan's real network, against the sampler on the CPU: the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from kit.cuda.host_engine import HostEngine

from pysdk import Sampler, _native, _testing
from pysdk.errors import DeviceError, EngineError, NumericalError, OptionError, OptionTypeError
from pysdk.machine.devices import describe_devices, device_number


@pytest.fixture
def on_device(conditional_plan: Path, device: _testing.SimulatedDevice) -> Iterator[Sampler]:
    with Sampler(conditional_plan, device="cuda", network=HostEngine(conditional_plan, device)) as sampler:
        yield sampler


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"seed": 7, "start": 3, "solver": "ddpm", "steps": 5},
        {"guidance_scale": 2.5, "labels": 1},
        {"guidance_scale": [0.0, 1.0, 3.0, 2.0, -1.0, 4.0], "guidance_interval": (200, 700)},
        {"noise": lambda draw, images: np.full((len(images), 1, 8, 8), draw / 9, np.float32)},
        {"output": "float32"},
    ],
    ids=["plain", "ddpm", "guided", "interval", "noise", "float32"],
)
def test_images_are_those_of_the_cpu(conditional: Sampler, on_device: Sampler, arguments: dict[str, Any]) -> None:
    arguments = {"steps": 4, **arguments}
    np.testing.assert_array_equal(on_device.sample(6, **arguments), conditional.sample(6, **arguments))


@pytest.mark.parametrize("launch", ["while", "step", "plain"])
def test_every_launch_gives_the_same_images(
    conditional_plan: Path, conditional: Sampler, device: _testing.SimulatedDevice, launch: Any
) -> None:
    with Sampler(
        conditional_plan, device="cuda:0", network=HostEngine(conditional_plan, device), launch=launch
    ) as sampler:
        np.testing.assert_array_equal(sampler.sample(3, steps=3), conditional.sample(3, steps=3))
        way = {"while": "one launch per chain", "step": "one launch per row", "plain": "plain calls"}[launch]
        assert sampler.info["running"]["chain"].startswith(f"simulated device, {way}, 0.")
        assert device.log.count("launch") == {"while": 1, "step": 3, "plain": 0}[launch]


def test_inpainting_and_latents_are_those_of_the_cpu(conditional: Sampler, on_device: Sampler) -> None:
    images = conditional.sample(2, steps=3)
    mask = np.zeros((8, 8), bool)
    mask[2:6] = True
    options = {"steps": 4, "jump_length": 2, "jump_n_sample": 2, "labels": 0}
    np.testing.assert_array_equal(
        on_device.inpaint(images, mask, **options), conditional.inpaint(images, mask, **options)
    )
    np.testing.assert_array_equal(on_device.encode(images, steps=3), conditional.encode(images, steps=3))


@pytest.mark.parametrize("every", [1, 2, 50])
def test_previews_are_those_of_the_cpu(conditional: Sampler, on_device: Sampler, every: int) -> None:
    arguments = {"steps": 20, "every": every, "output": "float32"}
    wanted = list(conditional.stream(6, **arguments))
    shown = list(on_device.stream(6, **arguments))
    assert [p.step for p in shown] == [p.step for p in wanted]
    for got, expected in zip(shown, wanted, strict=True):
        np.testing.assert_array_equal(got.x, expected.x)
        np.testing.assert_array_equal(got.denoised, expected.denoised)


def test_dlpack_images_stay_where_they_are(conditional: Sampler, on_device: Sampler) -> None:
    made = on_device.sample(6, steps=3, output="dlpack")
    assert isinstance(made, _native.DeviceArray)
    wanted = conditional.sample(6, steps=3, output="dlpack")
    view = np.from_dlpack(made)
    assert view.ctypes.data == made.pointer
    np.testing.assert_array_equal(view, wanted)
    on_device.sample(6, steps=3, seed=1)
    np.testing.assert_array_equal(view, wanted, "later images lie elsewhere")
    assert on_device.sample(0, output="dlpack").shape == (0, 1, 8, 8)
    assert on_device.sample(0).shape == (0, 8, 8, 1)
    pictures = on_device.sample(2, steps=3, output="pil")
    np.testing.assert_array_equal(np.asarray(pictures[1])[..., None], conditional.sample(2, steps=3)[1])


@pytest.mark.parametrize("output", ["uint8", "float32", "dlpack"])
def test_images_that_diverge_are_named(on_device: Sampler, output: Any) -> None:
    noise = np.zeros((4, 6, 1, 8, 8), np.float32)
    noise[0, 5] = np.nan
    with pytest.raises(NumericalError, match="image 15 became NaN or infinite in 3 rows"):
        on_device.sample(6, start=10, steps=3, noise=noise, output=output)


def test_memory_does_not_grow(on_device: Sampler, device: _testing.SimulatedDevice) -> None:
    on_device.sample(6, steps=4)
    free, live = device.memory[0], device.live
    for seed in range(20):
        on_device.sample(6, steps=2 + seed % 3, seed=seed)
    assert (device.memory[0], device.live) == (free, live)
    on_device.close()
    with pytest.raises(EngineError, match="this sampler is closed"):
        on_device.sample(1)


def test_progress_counts_every_step(on_device: Sampler) -> None:
    seen: list[tuple[int, int]] = []
    on_device.sample(6, steps=5, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)


def test_failures_of_the_device_are_ours(on_device: Sampler, device: _testing.SimulatedDevice) -> None:
    for call in ("launch", "upload", "instantiate", "allocate"):
        device.fail(call)
        with pytest.raises(DeviceError, match=call):
            on_device.sample(1, steps=2)
    device.fail("allocate", how="memory")
    with pytest.raises(DeviceError, match="allocate"):
        on_device.sample(1, steps=2)
    with pytest.raises(OptionError, match="classifier"):
        on_device.sample(1, steps=2, classifier_scale=1.0)


def test_names_of_devices() -> None:
    assert [device_number(name) for name in ("cpu", "cuda", "cuda:0", "cuda:12")] == [None, 0, 0, 12]
    for name in ("gpu", "cuda:", "cuda:-1", "CUDA", ""):
        with pytest.raises(OptionError, match="expected 'cpu', 'cuda' or"):
            device_number(name)
    with pytest.raises(OptionTypeError, match="device is 0"):
        device_number(0)


def test_what_a_device_needs_is_said(conditional_plan: Path, device: _testing.SimulatedDevice) -> None:
    with pytest.raises(EngineError, match=r"on a CUDA device \(.*onnxruntime: it runs on the CPU.*\); give one with"):
        Sampler(conditional_plan, device="cuda")
    with pytest.raises(OptionError, match="network and launch are for a CUDA device"):
        Sampler(conditional_plan, network=lambda x, t: x)
    with pytest.raises(OptionError, match="launch is 'fast'"):
        Sampler(conditional_plan, device="cuda", launch="fast")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="engine and network are both given"):
        Sampler(conditional_plan, device="cuda", engine="onnxruntime", network=HostEngine(conditional_plan, device))
    with (
        Sampler(conditional_plan, device="cuda", network=HostEngine(conditional_plan, device)) as sampler,
        pytest.raises(OptionError, match="the likelihood is computed on the CPU alone"),
    ):
        sampler.likelihood(np.zeros((1, 8, 8, 1), np.uint8))


def test_without_a_device_the_reason_is_one_clear_sentence(conditional_plan: Path) -> None:
    from pysdk.cli.commands import pysdk

    _, count, text = _native.cuda_status()
    assert describe_devices().startswith(text)
    printed = CliRunner().invoke(pysdk, ["devices"])
    assert printed.exit_code == 0
    assert text in printed.output
    if count == 0:
        with pytest.raises(DeviceError, match="CUDA"):
            Sampler(conditional_plan, device="cuda", network=lambda x, t: x)
