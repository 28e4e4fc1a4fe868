"""What torch makes of a module is a network too, and can be captured into the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.cuda.on_gpu import MODEL, small_network, smooth_chain

from pysdk import _native


def images(torch: Any, device: _native.Device, network: Any) -> np.ndarray:
    chain, start = smooth_chain(torch, device, network, steps=20)
    for seed in (1, 0):  # what begins again is replayed
        start(seed)
        assert chain.advance(99) == 20
    assert chain.path == "while", chain.why
    return chain.x.numpy()


def test_a_compiled_module(torch: Any, device: _native.Device) -> None:
    pytest.importorskip("triton", reason="torch.compile needs triton")
    network = small_network(torch)
    made = images(torch, device, torch.compile(network))
    np.testing.assert_allclose(made, images(torch, device, network), atol=2e-3)


def test_an_aotinductor_package(torch: Any, device: _native.Device, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="AOTInductor needs triton")
    network = small_network(torch)
    inputs = torch.zeros(4, *MODEL.shape, device="cuda"), torch.zeros(1, device="cuda")
    try:
        exported = torch.export.export(network, inputs)
        package = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "network.pt2"))
    except Exception as error:  # whatever a compiler that is not ours lacks
        pytest.skip(f"AOTInductor cannot compile here: {error}")
    # otherwise it keeps events of its runs and looks at them later, which a capture does not allow
    loaded = torch._inductor.aoti_load_package(package, run_single_threaded=True)
    np.testing.assert_allclose(images(torch, device, loaded), images(torch, device, network), atol=2e-3)
