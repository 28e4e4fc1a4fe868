"""ONNX Runtime on the CPU: runs any ONNX network, bound to the chain's own buffers."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pysdk import _native
from pysdk.distribution import require
from pysdk.engines.contract import Buffers
from pysdk.engines.cost import Cost
from pysdk.engines.onnxruntime.arena import limited_session, struck
from pysdk.errors import EngineError, PysdkError
from pysdk.machine.memory import Budget
from pysdk.onnx_file import operators
from pysdk.onnx_file.model import read
from pysdk.plan.manifest import NETWORK_DATA_NAME, EngineInfo, ModelInfo

if TYPE_CHECKING:
    import onnxruntime

INPUTS = {"x": "tensor(float)", "t": "tensor(float)", "label": "tensor(int64)"}
OUTPUT = "output"


def unusable(info: EngineInfo) -> str | None:
    """Why this machine cannot run such an engine, or None if it can."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed, get it with `pip install onnxruntime`"
    return None


class OnnxRuntimeEngine:
    """A session of ONNX Runtime; see `pysdk.engines.contract.Engine`.

    Args:
        session: runs the network.
        description: one line for people.
        budget: what the session's memory was taken from.
        owners: hold memory whose addresses the session has.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, description: str, budget: Budget, *owners: object
    ) -> None:
        self.session = session
        self.budget = budget
        self.owners = owners
        self.description = description

    def bind(self, buffers: Buffers) -> Callable[[], object]:
        """IO binding by address: ONNX Runtime reads from and writes to the chain's memory.

        A run that is interrupted ends after the node it is in.
        """
        import onnxruntime

        binding = self.session.io_binding()
        arrays: dict[str, Any] = {
            "x": buffers.network_input,
            "t": buffers.network_time,
            "label": buffers.network_labels,
        }
        for name in (node.name for node in self.session.get_inputs()):
            array = arrays[name]
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        out = buffers.network_output
        binding.bind_output(OUTPUT, "cpu", 0, out.dtype.type, out.shape, out.ctypes.data)
        run, budget, options = self.session.run_with_iobinding, self.budget, onnxruntime.RunOptions()

        def call() -> None:
            try:
                run(binding, options)
            except Exception as error:  # its exceptions share no base class
                raise struck(error, budget) or EngineError(_one_line(error)) from error

        def interrupt(stop: bool) -> None:
            options.terminate = stop

        return _native.InterruptibleNetwork(call, interrupt)


def open_session(
    network: bytes | memoryview,
    threads: int,
    data: memoryview | None = None,
    *,
    budget: Budget | None = None,
    trust: bool = False,
) -> tuple[onnxruntime.InferenceSession, object]:
    """A session on an ONNX file in memory, and what has to live as long: the memory of the weights in network.data.

    `pysdk.onnx_file` reads and checks the network first; it can name no other file. Its memory is taken from `budget`,
    by default a share of the machine's, see `pysdk.engines.onnxruntime.arena`. With `trust` it may have any operators,
    control flow and functions too.

    Raises:
        MemoryLimitError: the budget is too small.
        EngineError: `pysdk.onnx_file` refuses the network.
        Exception: whatever ONNX Runtime has against the network; its exceptions share no base class.
    """
    import onnxruntime

    file = read(network, None if data is None else len(data))
    if not trust:
        operators.check(file)
    weights = file.stored(data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, not printed
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not its own format
    # no builds but those made so can refuse files of weights; none is below what is no folder
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    if values:
        options.add_external_initializers(list(weights), values)
    size = weight_bytes(file.data, *(() if data is None else (data,)))
    session = limited_session(file, options, size, Budget() if budget is None else budget)
    return session, values


def weight_bytes(network: bytes | memoryview, *data: memoryview) -> int:
    """The bytes that count as weights in a session's memory: those of its files."""
    return sum(len(part) for part in (network, *data))


def cost(model: ModelInfo, info: EngineInfo, network: memoryview, threads: int, *data: memoryview) -> Cost:
    """The weights, and whether the network needs trust; ONNX Runtime does not say more. EngineError as in `load`."""
    file = read(network, len(data[0]) if data else None)
    reason = operators.unusual(file)
    return Cost(
        weights=weight_bytes(file.data, *data),
        needs_trust=reason is not None,
        refused=None if reason is None else f"it has {reason}",
    )


def load(
    model: ModelInfo,
    info: EngineInfo,
    network: memoryview,
    threads: int,
    *data: memoryview,
    budget: Budget | None = None,
    trust: bool = False,
) -> OnnxRuntimeEngine:
    """A session on `network`, an ONNX file in memory, the weights of a large one in `data`, which is network.data.

    With `trust` the network may have any operators.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        EngineError: `open_session` or ONNX Runtime refuses the network, its weights lie elsewhere, or it is not the
            network the manifest describes.
        MemoryLimitError: it needs more memory than the budget has.
    """
    budget = Budget() if budget is None else budget
    require("onnxruntime", "pip install onnxruntime")
    import onnxruntime

    if info.data not in ((), (NETWORK_DATA_NAME,)):
        raise EngineError(f"ONNX Runtime reads {NETWORK_DATA_NAME} beside the network, the plan names {info.data}")
    try:
        session, owner = open_session(network, threads, data[0] if data else None, budget=budget, trust=trust)
    except PysdkError:
        raise
    except Exception as error:  # its exceptions share no base class
        raise struck(error, budget) or EngineError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the network: {_one_line(error)}"
        ) from error
    found = {node.name: node.type for node in session.get_inputs()}
    expected = {name: kind for name, kind in INPUTS.items() if name != "label" or model.num_classes is not None}
    if found != expected or [node.name for node in session.get_outputs()] != [OUTPUT]:
        outputs = [node.name for node in session.get_outputs()]
        raise EngineError(
            f"the network has inputs {found} and outputs {outputs}, expected {expected} and ['{OUTPUT}']: "
            "the plan's manifest does not belong to it"
        )
    _, height, width = model.shape
    shapes = {"x": model.shape, OUTPUT: (model.out_channels, height, width)}
    for node in [*session.get_inputs(), *session.get_outputs()]:
        # a size may also be a name, which stands for any number, and a shape may be unknown
        if node.name in shapes and node.shape and not _fits(node.shape[1:], shapes[node.name]):
            raise EngineError(
                f"the network has {node.name!r} of shape {node.shape}, expected the batch, then "
                f"{', '.join(map(str, shapes[node.name]))}: the plan's manifest does not belong to it"
            )
    return OnnxRuntimeEngine(session, f"ONNX Runtime {onnxruntime.__version__}, CPU, {threads} threads", budget, owner)


def _fits(found: list[int | str | None], expected: tuple[int, int, int]) -> bool:
    return len(found) == 3 and all(a == b or not isinstance(a, int) for a, b in zip(found, expected, strict=True))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
