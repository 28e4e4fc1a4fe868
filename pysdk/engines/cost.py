"""What the networks of a plan take of a machine, and whether they need trust; known before one is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pysdk.errors import PysdkError
from pysdk.machine.processors import default_threads
from pysdk.plan.manifest import EngineInfo

if TYPE_CHECKING:
    from pysdk.plan.reader import Plan


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a network takes on the CPU; None where its engine does not count.

    Attributes:
        engine: its kind.
        runs: "network", or "classifier" for the one of classifier guidance.
        batch_size: images in a call.
        weights: bytes of weights in memory.
        network: bytes of activations and work space at that batch size, with all processors of this process.
        multiplications: for one image and step.
        needs_trust: whether it runs only with `trust=True` (`--trust`).
        refused: why it does not run without it, or not at all; None if it does.
    """

    engine: str = ""
    runs: str = "network"
    batch_size: int = 0
    weights: int | None = None
    network: int | None = None
    multiplications: float | None = None
    needs_trust: bool = False
    refused: str | None = None

    def summary(self) -> str:
        """One line for a terminal."""
        if self.weights is None:
            return f"none ({self.refused})"
        counted = f"{self.weights:,} bytes of weights; its operations and the memory they take are not counted"
        if self.multiplications is not None and self.network is not None:
            counted = (
                f"{self.multiplications:.3g} multiplications per image and step; {self.weights:,} bytes of weights "
                f"and {self.network:,} at batch {self.batch_size}"
            )
        return f"{counted}; needs --trust: {self.refused}" if self.needs_trust else counted


def costs(plan: Plan) -> list[Cost]:
    """What every network of a plan takes on the CPU, in the plan's order.

    Nothing is allocated. A damaged network is `refused`.
    """
    from pysdk.engines import registry  # whose engines say what they cost

    def cost(info: EngineInfo, runs: str) -> Cost:
        try:
            data = [plan.unverified(name) for name in info.data]  # only their sizes are looked at
            threads = default_threads()
            found = registry.on_cpu(info.kind).cost(plan.manifest.model, info, plan.member(info.member), threads, *data)
        except PysdkError as error:
            found = Cost(refused=str(error))
        return msgspec.structs.replace(found, engine=info.kind, runs=runs, batch_size=info.batch_size)

    manifest = plan.manifest
    found = [cost(info, "network") for info in manifest.engines if registry.home(info.kind) == "cpu"]
    if manifest.classifier is not None:
        found.append(cost(registry.of_classifier(manifest.classifier), "classifier"))
    return found
