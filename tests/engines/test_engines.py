"""Engines: which one of a plan is taken, what it refuses, and that it works on the chain's own memory."""

import gc
import importlib.util
import os
import pkgutil
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from kit.tiny_networks import multiplication, toy_engine, write_toy_plan

import pysdk.engines
from pysdk import Clip, Plan, Sampler, _native
from pysdk.engines import registry
from pysdk.errors import EngineError, MissingDependencyError, NumericalError
from pysdk.machine.processors import MAX_THREADS, default_threads


@pytest.fixture
def toy(tmp_path: Path) -> Sampler:
    return Sampler(write_toy_plan(tmp_path / "toy.plan"), threads=1)


# Which one is taken.


def test_every_kind_has_a_module_and_every_module_a_kind() -> None:
    modules = {module.name for module in pkgutil.iter_modules(pysdk.engines.__path__)}
    assert modules - {"contract", "registry", "choice", "cost"} == set(registry.KINDS)
    for kind in registry.KINDS:
        module = registry.on_device(kind) if registry.home(kind) == "cuda" else registry.on_cpu(kind)
        assert callable(module.unusable)
        assert callable(module.load)


@pytest.mark.parametrize("kind", ["quantum", "", "..onnxruntime", "os", "onnxruntime.numpy"])
def test_a_plan_cannot_name_another_module(kind: str) -> None:
    with pytest.raises(EngineError, match=r"there is no engine .*; this pysdk has .*onnxruntime"):
        registry.on_cpu(kind)


def test_what_does_not_run_here_is_skipped_and_reported(tmp_path: Path) -> None:
    path = write_toy_plan(tmp_path / "toy.plan", engines=(toy_engine(kind="quantum"), toy_engine()))
    with Sampler(path, threads=1) as sampler:
        running = sampler.info["running"]
        assert running["engine"] == "onnxruntime"
        assert running["skipped"] == {"quantum": "this pysdk does not know it"}
        assert sampler.sample(2).shape == (2, 2, 2, 1)
    with pytest.raises(EngineError, match=r"no engine 'quantum' .* \(quantum: this pysdk does not know it\); build it"):
        Sampler(path, engine="quantum")


def test_an_engine_that_lacks_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_toy_plan(tmp_path / "toy.plan")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"onnxruntime: onnxruntime is not installed, get it with `pip install"):
        Sampler(path)
    with Plan.open(path) as plan, pytest.raises(MissingDependencyError, match="`pip install onnxruntime`"):
        registry.on_cpu("onnxruntime").load(plan.manifest.model, toy_engine(), plan.member("network.onnx"), 1)


def test_a_plan_without_engines(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"has no engine that runs on this machine \(it has none at all\)"):
        Sampler(write_toy_plan(tmp_path / "toy.plan", engines=()))


def test_info(conditional_plan: Path) -> None:
    with Sampler(conditional_plan, engine="onnxruntime", threads=1) as sampler:
        info = sampler.info
    assert info["model"]["name"] == "tiny"
    assert info["schedule"]["num_timesteps"] == 1000
    running = info["running"]
    assert running["description"] == f"ONNX Runtime {onnxruntime.__version__}, CPU, 1 threads"
    assert running["chain"] == f"CPU, {_native.isa()}"
    assert (running["threads"], running["batch_size"], running["skipped"]) == (1, 4, {})


def test_threads_are_those_of_the_process_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_toy_plan(tmp_path / "toy.plan")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(1000)), raising=False)
    assert default_threads() == MAX_THREADS  # a larger machine is no error
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    with Sampler(path) as sampler:
        assert sampler.threads == 2


# What it refuses.


@pytest.mark.parametrize(
    ("network", "model", "message"),
    [
        (b"not ONNX at all", {}, "the network is not an ONNX file as protobuf writes it, or damaged: "),
        (multiplication(0.5, output="y"), {}, r"outputs \['y'\], expected .* and \['output'\]: the plan's manifest"),
        (multiplication(0.5, classes=True), {}, r"has inputs .*'label'.*, expected \{'x': .*, 't': .*\} and"),
        (multiplication(0.5), {"num_classes": 3}, r"expected .*'label': 'tensor\(int64\)'"),
        (multiplication(0.5, shape=(1, 4, 4)), {}, r"has 'x' of shape \['batch', 1, 4, 4\], expected .* 1, 2, 2"),
        (
            multiplication(0.5),
            {"out_channels": 2, "variance_type": "learned_range"},
            r"has 'output' of shape \['batch', 1, 2, 2\], expected the batch, then 2, 2, 2",
        ),
    ],
)
def test_networks_that_are_not_the_manifests(tmp_path: Path, network: bytes, model: dict, message: str) -> None:
    path = write_toy_plan(tmp_path / "toy.plan", network, **model)
    with pytest.raises(EngineError, match=message) as caught:
        Sampler(path)
    assert "\n" not in str(caught.value)


def test_a_network_that_fails_while_running(tmp_path: Path) -> None:
    """The manifest promises 9 classes, the network's table has 4."""
    with Sampler(write_toy_plan(tmp_path / "toy.plan", num_classes=9), threads=1) as sampler:
        expected = sampler.sample(4, labels=[0, 1, 2, 3])
        for progress in (None, lambda done, total: None):
            with pytest.raises(EngineError, match=r"ONNX Runtime .* failed at step 1: .*indices") as caught:
                sampler.sample(4, labels=8, progress=progress)
            assert "\n" not in str(caught.value)
        np.testing.assert_array_equal(sampler.sample(4, labels=[0, 1, 2, 3]), expected)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 3e38])
def test_a_network_that_returns_nan(tmp_path: Path, factor: float) -> None:
    path = write_toy_plan(tmp_path / "toy.plan", multiplication(factor))
    message = "image 5 became NaN or infinite in 10 rows: the network or the step table diverges"
    with Sampler(path, threads=1) as sampler, pytest.raises(NumericalError, match=message):
        sampler.sample(2, start=5, clip=Clip.none())


# Whose memory it works on.


@pytest.mark.parametrize("guided", [False, True])
def test_the_engine_is_bound_to_the_chains_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guided: bool
) -> None:
    bound: dict[str, tuple[int, list[int]]] = {}

    def spy(name: str) -> None:
        original = getattr(onnxruntime.IOBinding, name)

        def record(self: Any, key: str, device: str, number: int, kind: Any, shape: Any, pointer: int) -> None:
            bound[key] = (pointer, list(shape))
            original(self, key, device, number, kind, shape, pointer)

        monkeypatch.setattr(onnxruntime.IOBinding, name, record)

    spy("bind_input")
    spy("bind_output")
    path = write_toy_plan(tmp_path / "toy.plan", num_classes=3, null_label=3)
    with Sampler(path, threads=1) as sampler:
        sampler.sample(3, guidance_scale=2.0 if guided else 1.0)
        _, chain = sampler._executor._idle[-1]  # the last one made
    buffers = {
        "x": chain.network_input,
        "t": chain.network_time,
        "label": chain.network_labels,
        "output": chain.network_output,
    }
    assert bound == {name: (array.ctypes.data, list(array.shape)) for name, array in buffers.items()}


def test_it_reads_and_writes_there_without_a_copy(toy: Sampler) -> None:
    chain = _native.Chain(batch=3, shape=(1, 2, 2))
    call = toy._executor.engine.bind(chain)
    for value in (1.0, -6.0):
        chain.network_input[:] = value
        call()
        np.testing.assert_array_equal(chain.network_output, np.full((3, 1, 2, 2), value / 2, np.float32))


def test_chains_are_kept_for_the_next_call(toy: Sampler) -> None:
    toy.sample(4)
    ((_, chain),) = toy._executor._idle
    address = chain.network_input.ctypes.data
    toy.sample(8, seed=3)
    assert [kept.network_input.ctypes.data for _, kept in toy._executor._idle] == [address]


def test_chains_are_freed_without_the_garbage_collector(toy: Sampler) -> None:
    toy.sample(3)
    chains = [weakref.ref(toy._executor._idle[0][1])]
    gc.disable()
    try:
        for n in (1, 2, 4):
            toy.sample(n)
            chains.append(weakref.ref(toy._executor._idle[-1][1]))
        with pytest.raises(ZeroDivisionError):
            toy.sample(1, progress=lambda done, total: 1 // 0)
        toy.close()
        assert [chain() for chain in chains] == [None] * 4
    finally:
        gc.enable()


def test_new_chains_again_and_again_do_not_grow_the_process(tmp_path: Path) -> None:
    """300 chains of up to 16 images, 160 MB in all; sizes cycle, so that none is found among the idle ones."""
    import resource

    shape = (1, 64, 64)
    path = write_toy_plan(
        tmp_path / "toy.plan", multiplication(0.5, shape=shape), shape=shape, engines=(toy_engine(batch_size=16),)
    )

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

    with Sampler(path, threads=1) as sampler:
        for n in range(1, 17):
            sampler.sample(n, steps=[0])
        before = peak()
        for index in range(300):
            sampler.sample(1 + index % 16, steps=[0])
        assert peak() - before < 30
