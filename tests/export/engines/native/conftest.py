"""Networks exported once for all tests of the compiler."""

from collections.abc import Callable

import numpy as np
import pytest
from kit.compiler.graphs import RNG

from pysdk import Plan
from pysdk.plan.manifest import ModelInfo

Exported = tuple[bytes, ModelInfo]


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """A test draws the same numbers whatever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture(scope="session")
def exported() -> Callable[[str], Exported]:
    """Name of a network -> its ONNX file and what a plan says of it."""
    from kit.compiler.networks import NETWORKS
    from kit.tiny_networks import one_thread

    from pysdk.export.lowering.torch_to_onnx import export_onnx

    found: dict[str, Exported] = {}

    def export(name: str) -> Exported:
        if name not in found:
            one_thread()
            network = NETWORKS[name]()
            found[name] = (export_onnx(network).graph, network.model)
        return found[name]

    return export


@pytest.fixture(scope="session", params=["conditional_plan", "unconditional_plan"])
def plan_network(request: pytest.FixtureRequest) -> Exported:
    """The two networks that all tests share."""
    with Plan.open(request.getfixturevalue(request.param)) as plan:
        return bytes(plan.member("network.onnx")), plan.manifest.model
