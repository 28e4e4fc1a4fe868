"""Kernels that TensorRT-RTX compiles for a GPU, kept between samplers; see test_tensorrt_on_device.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kit.cuda.tensorrt_stand_in import StandIn
from msgspec.structs import replace

from pysdk import Sampler
from pysdk.engines.tensorrt import kernel_cache

pytestmark = pytest.mark.parametrize("trt", ["tensorrt_rtx"], indirect=True)

GUIDED = {"steps": 4, "guidance_scale": 3.0, "guidance_interval": (200, 700)}


def test_the_next_process_finds_them(
    trt: StandIn, make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of all contexts in one file, which is written again only when there are new ones."""
    folder, path = tmp_path / "kernels" / "here", make(replace(trt.info, batch_invariant=True, batches=(1, 8)))
    monkeypatch.setenv(kernel_cache.VARIABLE, str(folder))
    with Sampler(path, device="cuda") as sampler:
        images = sampler.sample(8, **GUIDED)
        status = sampler.info["running"]["chain"]
    [file] = folder.iterdir()
    assert status.endswith(f", compiled kernels kept in {str(file)!r}")
    assert len(trt.compiled) == 2, "one context for pairs, one for unguided rows"
    stamp = file.stat().st_ino
    with Sampler(path, device="cuda") as sampler:
        np.testing.assert_array_equal(sampler.sample(8, **GUIDED), images)
        assert sampler.info["running"]["chain"].endswith(f", compiled kernels from {str(file)!r}")
        assert (len(trt.compiled), file.stat().st_ino) == (2, stamp)
        sampler.sample(3, steps=2)
    assert len(trt.compiled) == 3
    assert file.stat().st_ino != stamp
    assert {tuple(context.runs) for context in trt.contexts} == {("run", "captured")}, "no capture was spoilt"


def test_those_of_elsewhere_are_replaced(
    trt: StandIn, make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernel_cache.VARIABLE, str(tmp_path / "kernels"))
    path = make(trt.info)
    for environment in ("driver 580", "driver 590"):
        trt.environment = environment
        with Sampler(path, device="cuda") as sampler:
            sampler.sample(4, steps=2)
    assert len(trt.compiled) == 2
    [file] = (tmp_path / "kernels").iterdir()
    assert b"driver 590" in file.read_bytes()
    file.write_bytes(b"damaged")
    with Sampler(path, device="cuda") as sampler:
        sampler.sample(4, steps=2)
    assert b"driver 590" in file.read_bytes()


def test_each_engine_and_gpu_has_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trt: StandIn) -> None:
    monkeypatch.setenv(kernel_cache.VARIABLE, str(tmp_path))
    environments = [(b"one", "1.7", "8.9"), (b"two", "1.7", "8.9"), (b"one", "1.8", "8.9"), (b"one", "1.7", "12.0")]
    caches = [kernel_cache.kernel_cache(*environment) for environment in environments]
    assert len({cache.path for cache in caches if cache is not None}) == len(environments)


def test_a_folder_that_cannot_be_written_is_no_error(
    trt: StandIn, make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(kernel_cache.VARIABLE, str(tmp_path / "file" / "folder"))
    with Sampler(make(trt.info), device="cuda") as sampler:
        sampler.sample(4, steps=2)
        status = sampler.info["running"]["chain"]
    assert status.endswith(f"compiled kernels are not kept in {str(tmp_path / 'file' / 'folder')!r}: Not a directory")


def test_nothing_is_kept_unless_asked(trt: StandIn, make: Callable[..., Path]) -> None:
    with Sampler(make(trt.info), device="cuda") as sampler:
        sampler.sample(4, steps=2)
        assert sampler.info["running"]["chain"].endswith("MiB in idle chains and contexts")
    assert [context.cache for context in trt.contexts] == [None]
