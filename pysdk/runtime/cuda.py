"""Chains on a CUDA device and their engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from pysdk import _native
from pysdk.checks import whole_number
from pysdk.engines import choice, registry
from pysdk.engines.contract import DeviceEngine
from pysdk.errors import DeviceError, EngineError, OptionError
from pysdk.images import Images, Output
from pysdk.machine.devices import device_errors, open_device
from pysdk.machine.memory import Budget
from pysdk.plan.manifest import EngineInfo, ModelInfo
from pysdk.plan.reader import Plan
from pysdk.progress import Progress
from pysdk.request.request import Request
from pysdk.runtime.batches import MAX_BATCH, UPDATE_SECONDS, Executor, Float, Kind, check_finite, diverged
from pysdk.runtime.deadline import Deadline, told

Launch = Literal["auto", "while", "step", "plain"]
"""How rows get to the device: one launch per chain, one per row, plain calls, or the first of these that works."""

SLOTS = 8
"""Snapshots kept of a chain that is being watched: how far it may run ahead of its reader."""

_DEFAULT_BATCH = 16

_LAUNCHES = {"while": "one launch per chain", "step": "one launch per row", "plain": "plain calls"}


class _Half:
    """The conditional half of a chain's network buffers."""

    def __init__(self, chain: _native.CudaChain) -> None:
        batch = len(chain.x)
        self.network_input = chain.network_input.head(batch)
        self.network_time = chain.network_time
        self.network_labels = chain.network_labels.head(batch)
        self.network_output = chain.network_output.head(batch)


class CudaExecutor(Executor[DeviceEngine, _native.CudaChain]):
    """Runs requests on one device; safe to use from several threads at once, each with a chain and a stream.

    Args:
        model: what the network is.
        engine: the network, on the device.
        device: from `open_device`.
        batch_size: largest number of images in one network call.
        batch_invariant: whether the engine gives an image the same bits in any smaller batch; if not, all calls have
            one size.
        launch: how rows get to the device.
    """

    def __init__(
        self,
        model: ModelInfo,
        engine: DeviceEngine,
        device: _native.Device,
        *,
        batch_size: int,
        batch_invariant: bool = False,
        launch: Launch = "auto",
        budget: Budget | None = None,
    ) -> None:
        super().__init__(model, engine, batch_size=batch_size, batch_invariant=batch_invariant, budget=budget)
        self.device = device
        self.launch = launch
        self._last: tuple[str, str] | None = None

    @property
    def chain_description(self) -> str:
        """The device, the path of the last chain and why not a better one, memory, and the network's own status."""
        path, why = self._last or ("", "")
        holders = "idle chains and contexts" if hasattr(self.engine, "memory") else "idle chains"
        used = f"{self.memory / 2**20:.1f} MiB in {holders}"
        status = getattr(self.engine, "status", "")
        return ", ".join(part for part in (self.device.name, _LAUNCHES.get(path, ""), why, used, status) if part)

    @property
    def memory(self) -> int:
        """Bytes of device memory that idle chains hold, and what a TensorRT engine's contexts work in."""
        with self._lock:
            chains = sum(chain.memory for _, chain in self._idle)
            return chains + int(getattr(self.engine, "memory", 0))

    def _samples(self, chain: _native.CudaChain, count: int) -> Float:
        return chain.x.head(count).numpy()

    def images(
        self, request: Request, output: Output, progress: Progress = None, deadline: Deadline | None = None
    ) -> Any:
        """All images of a request in the form of `output`: made on the device, and kept there for "dlpack".

        "dlpack" is a `_native.DeviceArray`, float32 (n, C, H, W).
        """
        if output == "float32":
            return self.run(request, progress, deadline)
        channels, height, width = self.model.shape
        count, on_device = len(request), output == "dlpack"
        with device_errors():
            result = self.device.empty(
                (count, channels, height, width) if on_device else (count, height, width, channels),
                "float32" if on_device else "uint8",
            )
            for part, chain in self._finished_batches(request, progress, deadline):
                size = part.stop - part.start
                if on_device:
                    chain.copy_x(result, first=part.start, images=size)
                broken = chain.bytes(
                    None if on_device else result, first=part.start, images=size, value_range=self.model.value_range
                )
                if broken is not None:
                    raise diverged(request, part.start + broken)
            if on_device:
                return result
            images = Images(result.numpy())
        return images.to_pil() if output == "pil" else images

    def _new_chain(self, kind: Kind) -> _native.CudaChain:
        if kind.classifier:
            raise OptionError(
                "classifier guidance runs on the CPU alone; leave classifier_scale out, or use device='cpu'"
            )
        with self._lock:
            engine = self.engine
        with device_errors(), self.device.current():
            chain = _native.CudaChain(
                self.device,
                batch=kind.batch,
                shape=self.model.shape,
                out_channels=self.model.out_channels,
                guided=kind.guided,
                path=self.launch,
            )
            chain.attach(engine.bind(chain), conditional=engine.bind(_Half(chain)) if kind.alone else None)
        return chain

    def _begin(self, chain: _native.CudaChain, request: Request, part: slice) -> None:
        with device_errors():
            super()._begin(chain, request, part)

    def advance(
        self,
        chain: _native.CudaChain,
        until: int,
        report: Callable[[int], object] | None,
        deadline: Deadline | None = None,
    ) -> None:
        """Rows up to `until`: one launch where it is possible, and a look at the counter now and then."""
        done, stop = chain.position, None if deadline is None else deadline.stop
        try:
            with device_errors():
                chain.launch(until - done, stop)
                while done < until:
                    now = chain.wait(until, math.inf if report is None else UPDATE_SECONDS, stop)
                    if report is not None and now > done:
                        report(now - done)
                    done = now
        except DeviceError as error:
            raise DeviceError(f"{self.engine.description} failed after step {done}: {error}") from error
        except EngineError as error:
            raise EngineError(f"{self.engine.description} failed after step {done}: {error}") from error
        finally:
            self._last = chain.path, chain.why

    def previews(
        self, request: Request, every: int, deadline: Deadline | None = None
    ) -> Iterator[tuple[int, Float, Float]]:
        """(rows done, x, denoised) after every `every` rows and after the last, on the host.

        The device goes on while they are looked at, up to `SLOTS` of them ahead.
        """
        chains = []
        for part, kind in self._batches(request):
            chain = self._new_chain(kind)
            chain.keep_snapshots(min(every, len(request.table)), SLOTS)
            self._begin(chain, request, part)
            chains.append((chain, part.stop - part.start))
        return self._side_by_side(request, chains, every, deadline)

    def _side_by_side(
        self, request: Request, chains: list[tuple[_native.CudaChain, int]], every: int, deadline: Deadline | None
    ) -> Iterator[tuple[int, Float, Float]]:
        total = len(request.table)
        stop = None if deadline is None else deadline.stop
        marks = [*range(every, total, every), total]
        for index, step in enumerate(marks) if chains else ():
            if index % SLOTS == 0:  # all snapshots were read: the ring is free again
                until = marks[min(index + SLOTS, len(marks)) - 1]
                for chain, _ in chains:
                    with device_errors(), told(deadline, 0, len(request), chain):
                        chain.launch(until - chain.position, stop)
                        self._last = chain.path, chain.why
            for chain, _ in chains:
                with device_errors(), told(deadline, 0, len(request), chain):
                    chain.wait(step, stop=stop)
            with device_errors():
                x = np.concatenate([chain.snapshot(step)[:count] for chain, count in chains])
                denoised = np.concatenate([chain.snapshot(step, denoised=True)[:count] for chain, count in chains])
            check_finite(x, request)
            yield step, x, denoised


def load(
    plan: Plan,
    kind: str | None,
    *,
    number: int,
    network: Any,
    batch_size: int | None,
    launch: Launch,
    budget: Budget | None = None,
) -> tuple[CudaExecutor, str, dict[str, str]]:
    """The executor of a plan on a device, the kind of its engine, and why each engine before it does not run there.

    Args:
        plan: an open plan.
        kind: take this engine or none.
        number: the device's.
        network: runs in place of the plan's engines: a `DeviceEngine`, or a torch module or function
            (x, t[, label]) -> output.
        batch_size: images in one network call; by default what the plan's engine was built for.
        launch: how rows get to the device.
        budget: what the images on the host are taken from.

    Raises:
        DeviceError: there is no such device, or it has no room.
        EngineError: no engine of the plan runs on it.
        OptionError: launch, engine and network do not go together, or the engine does not take such batches.
    """
    if launch not in ("auto", "while", "step", "plain"):
        raise OptionError(f"launch is {launch!r}, expected 'auto', 'while', 'step' or 'plain'")
    device = open_device(number)
    if batch_size is not None:
        whole_number("batch_size", batch_size, 1, MAX_BATCH)
    if network is None:
        info, skipped = choice.choose(plan, kind, device=number)
        default, found = batch_of(info, batch_size), info.kind
        invariant = info.batch_invariant and (info.batches is None or info.batches[0] == 1)
        for name in info.data:
            plan.member(name).release()  # a library's parser reads it: only what was verified
        with device_errors(), device.current():
            loaded = registry.load_on_device(plan, info, number)
    else:
        if kind is not None:
            raise OptionError("engine and network are both given; network runs in place of the plan's engines")
        loaded = _as_engine(network, plan.manifest.model, number)
        sizes = [info.batch_size for info in plan.manifest.engines]
        skipped, invariant, found = {}, False, "network"
        default = sizes[0] if sizes else _DEFAULT_BATCH
    executor = CudaExecutor(
        plan.manifest.model,
        loaded,
        device,
        batch_size=default if batch_size is None else batch_size,
        batch_invariant=invariant,
        launch=launch,
        budget=budget,
    )
    return executor, found, skipped


def _as_engine(network: Any, model: ModelInfo, number: int) -> DeviceEngine:
    """`network`, or an engine around it if it is a module or a function."""
    if hasattr(network, "bind"):
        engine: DeviceEngine = network
        return engine
    from pysdk.runtime.torch_network import TorchNetwork

    return TorchNetwork(network, model, number)


def batch_of(info: EngineInfo, wanted: int | None) -> int:
    """Images in one network call: `wanted`, or what the engine was built for.

    Raises:
        OptionError: the engine does not take so many, or would give other bits.
    """
    size = info.batch_size if wanted is None else wanted
    if info.batches is not None:
        smallest, largest = info.batches
        if not smallest <= size <= largest:
            raise OptionError(
                f"batch_size is {size}, but this engine takes {smallest} to {largest} images in a call; choose among "
                "these, or build the plan with another --batch-profile"
            )
    elif size != info.batch_size and not info.batch_invariant:
        raise OptionError(
            f"batch_size is {size}, but this engine was built for {info.batch_size}; leave batch_size out"
        )
    return size
