"""Sessions of ONNX Runtime whose memory has a limit.

What a session computes in comes from an arena with a cap: ONNX Runtime lets a process register an arena for the
sessions made from then on, and each of ours has one of its own. Constants that it computes while it is made lie
elsewhere: each node's may have an equal part of a fixed share. Its weights are in neither.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from pysdk.errors import MemoryLimitError
from pysdk.machine.interrupts import interruptible
from pysdk.machine.memory import Budget
from pysdk.onnx_file.model import OnnxFile
from pysdk.onnx_file.wire import Message

if TYPE_CHECKING:
    import onnxruntime

_FOLDED = 4
"""Constants have one part in so many of a session's memory."""

_TINY = {"Constant", "Shape", "Size"}
"""Their results are in the file, or a few numbers."""

_STRUCK = re.compile(r"Available memory of (\d+) is smaller than requested bytes of (\d+)")
_registering = threading.Lock()


def limited_session(
    file: OnnxFile, options: onnxruntime.SessionOptions, weights: int, budget: Budget
) -> onnxruntime.InferenceSession:
    """A session that takes its weights, and at most half of what is then left of the budget.

    Raises:
        MemoryLimitError: the weights do not fit.
        Exception: whatever ONNX Runtime has against the network; its exceptions share no base class.
    """
    import onnxruntime

    give_back = [budget.take(weights, "the weights of the network need")]
    try:
        share = budget.left // 2
        give_back.append(budget.take(share, "ONNX Runtime needs"))
        folded = share // _FOLDED
        each = max(1, folded // max(1, foldable(file.model["graph"])))
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(each))
        options.add_session_config_entry("session.use_env_allocators", "1")
        with _registering:
            _register(share - folded)
            try:
                return interruptible(
                    lambda: onnxruntime.InferenceSession(file.data, options, providers=["CPUExecutionProvider"]),
                    lambda: options.set_load_cancellation_flag(True),
                )
            finally:
                _register(0)  # for other users of the library; nor would it keep our memory when the session is gone
    except BaseException:
        for give in give_back:
            give()
        raise


def _register(cap: int) -> None:
    """The arena of the sessions that are made from now on; 0 for one without a cap."""
    import onnxruntime

    where = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(where, onnxruntime.OrtArenaCfg({"max_mem": cap} if cap else {}))


def struck(error: Exception, budget: Budget) -> MemoryLimitError | None:
    """What to raise if this error of ONNX Runtime is that a session's arena is full."""
    found = _STRUCK.search(str(error))
    if found is None:
        return None
    left, needed = (int(number) for number in found.groups())
    return MemoryLimitError(
        f"ONNX Runtime needs {needed:,} bytes more for the network, and {left:,} are left of what it may have of the "
        f"limit of {budget.limit:,}; give a smaller batch_size, or a larger max_memory"
    )


def foldable(graph: Message) -> int:
    """How many nodes of a graph depend on constants and shapes alone: what ONNX Runtime may compute at once."""
    constant = {"", *(tensor.get("name", "") for tensor in graph.get("initializer", []))}
    count = 0
    for node in graph.get("node", []):
        tiny = node.get("op_type") in _TINY
        if tiny or constant.issuperset(node.get("input", [])):
            constant.update(node.get("output", []))
            count += not tiny
    return count
