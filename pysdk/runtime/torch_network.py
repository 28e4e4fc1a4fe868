"""A torch module, compiled or not, as the network of a device chain; torch is imported when one is made."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from pysdk.distribution import require
from pysdk.engines.contract import DeviceBuffers
from pysdk.errors import EngineError, OptionTypeError
from pysdk.plan.manifest import ModelInfo


class _Pool:
    """Torch memory that belongs to one network's graphs until this is dropped.

    Counted by hand: dropping a `torch.cuda.MemPool` ends the process if any thread allocates in another pool meanwhile
    (pytorch/pytorch#159301).
    """

    def __init__(self, number: int) -> None:
        import torch

        self.id: Any = torch.cuda.graph_pool_handle()
        torch._C._cuda_beginAllocateCurrentThreadToPool(number, self.id)
        torch._C._cuda_endAllocateToPool(number, self.id)  # not released: this count is ours
        weakref.finalize(self, _release, number, self.id).atexit = False


def _release(number: int, pool: Any) -> None:
    import torch

    torch._C._cuda_releasePool(number, pool)
    torch.cuda.empty_cache()  # torch would keep it, and reuse it for nothing


class TorchNetwork:
    """A callable on CUDA tensors that a CUDA graph can capture: a module, `torch.compile`d, an AOTInductor package.

    Args:
        network: (x, t) or, with classes, (x, t, label) -> output: x float32 (NB, C, H, W), t float32 (1,), label int64
            (NB,), output (NB, out_channels, H, W) of any floating dtype, or something with it as `.sample`. It must
            not synchronise, nor replay CUDA graphs of its own (so no mode="reduce-overhead").
        model: the model it stands for.
        number: the number of the device that its weights are on.

    Raises:
        MissingDependencyError: torch is not installed.
        OptionTypeError: `network` cannot be called.
        EngineError: this torch has no CUDA.
    """

    def __init__(self, network: Any, model: ModelInfo, number: int) -> None:
        require("torch", "pip install torch")
        import torch

        if not callable(network):
            raise OptionTypeError(
                f"network is {network!r}, expected a callable on CUDA tensors, such as a torch module"
            )
        if not torch.cuda.is_available():
            raise EngineError(f"torch {torch.__version__} sees no CUDA device; install a torch for CUDA")
        self._network = network
        self._takes_labels = model.num_classes is not None
        self._device = torch.device("cuda", number)
        self.description = f"torch {torch.__version__}, {type(network).__name__}"

    def bind(self, buffers: DeviceBuffers) -> Callable[[int], None]:
        """The network on a chain's buffers; what it allocates stays in a pool of its own, which its graphs keep."""
        import torch
        from torch.utils.dlpack import from_dlpack

        out = from_dlpack(buffers.network_output)
        inputs = [from_dlpack(buffers.network_input), from_dlpack(buffers.network_time)]
        if self._takes_labels:
            inputs.append(from_dlpack(buffers.network_labels))
        network, device, pool = self._network, self._device, _Pool(self._device.index)
        torch.cuda.current_stream(device).synchronize()  # the chain's stream does not wait for the weights

        def enqueue(stream: int) -> None:
            with (
                torch.no_grad(),
                torch.cuda.device(device),
                torch.cuda.use_mem_pool(pool),  # type: ignore[arg-type]
                torch.cuda.stream(torch.cuda.ExternalStream(stream, device=device)),
            ):
                torch.clear_autocast_cache()  # casts of weights belong into the capture
                made = network(*inputs)
                torch.clear_autocast_cache()  # and end with it
                made = made if isinstance(made, torch.Tensor) else made.sample
                if made.shape != out.shape:
                    raise EngineError(f"the network returned {tuple(made.shape)}, expected {tuple(out.shape)}")
                out.copy_(made)

        return enqueue
