"""What looks at images: a network in an ONNX file that turns them into features, or any callable that does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import flag, whole_number
from pysdk.distribution import require
from pysdk.engines.onnxruntime.arena import struck
from pysdk.engines.onnxruntime.engine import open_session
from pysdk.errors import DataError, EngineError, MemoryLimitError
from pysdk.files.regular_file import read_file
from pysdk.machine.interrupts import interruptible
from pysdk.machine.memory import Budget
from pysdk.machine.processors import MAX_THREADS, default_threads
from pysdk.onnx_file.model import CANONICAL, MAX_BYTES, read

FILE = "features.onnx"
"""The file's name in a folder."""

Answer = NDArray[np.floating[Any]] | tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]

Extractor = Callable[[NDArray[np.uint8]], Answer]
"""uint8 (n, H, W, C) -> features (n, D), or (features, class scores (n, K))."""

_INPUTS = ("tensor(uint8)", "tensor(float)")


class OnnxFeatures:
    """An extractor in an ONNX file, run by ONNX Runtime on the CPU.

    Its one input takes images (n, C, H, W): as levels if it is uint8, scaled to [-1, 1] if it is float32. The output
    `features` (n, D) has the features, `logits` (n, K), if there, the class scores; a single output may have any name.

    Args:
        path: the file, or a folder with `features.onnx` in it.
        threads: processors to use; by default all that this process may use.
        max_memory: bytes that its session may take; by default four fifths of what the system gives.
        trust: accept any operators, control flow and functions too; for files whose maker you know.

    Raises:
        DataError: there is no such file, or its inputs or outputs differ.
        EngineError: it is refused by `pysdk.onnx_file`, as it would be in a plan, or by ONNX Runtime.
        MemoryLimitError: `max_memory` is too small; calls raise it too.
        OptionError: `threads` or `max_memory` is out of range.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        max_memory: int | None = None,
        trust: bool = False,
    ) -> None:
        require("onnxruntime", "pip install onnxruntime")
        where = Path(path)
        self.path = where / FILE if where.is_dir() else where
        if not self.path.exists():
            raise DataError(
                f"There is no feature network {self.path}; give an ONNX file, or a folder with {FILE} in it, which "
                "`python -m pysdk.export.feature_network` writes."
            )
        processors = whole_number("threads", default_threads() if threads is None else threads, 1, MAX_THREADS)
        network = read_file(self.path, MAX_BYTES, DataError)
        try:
            data = read(network).data
        except EngineError as error:
            raise EngineError(f"cannot load {self.path}: {error}; {CANONICAL}") from error
        self._budget = Budget(max_memory)
        try:
            self._session, _ = open_session(data, processors, budget=self._budget, trust=flag("trust", trust))
        except MemoryLimitError:
            raise
        except EngineError as error:
            raise EngineError(f"cannot load {self.path}: {error}") from error
        except Exception as error:  # its exceptions share no base class
            raise struck(error, self._budget) or EngineError(
                f"ONNX Runtime cannot load {self.path}: {' '.join(str(error).split())}"
            ) from error
        inputs, outputs = self._session.get_inputs(), [node.name for node in self._session.get_outputs()]
        if len(inputs) != 1 or inputs[0].type not in _INPUTS or len(inputs[0].shape) != 4:
            found = {node.name: (node.type, node.shape) for node in inputs}
            raise DataError(f"{self.path} has inputs {found}; expected one, uint8 or float32 (n, C, H, W).")
        if len(outputs) > 1 and "features" not in outputs:
            raise DataError(f"{self.path} has outputs {outputs}; expected one, or one called 'features'.")
        self._input = inputs[0]
        self._outputs = ["features" if "features" in outputs else outputs[0]]
        self._outputs += ["logits"] * (len(outputs) > 1 and "logits" in outputs)

    def __repr__(self) -> str:
        return f"OnnxFeatures({str(self.path)!r})"

    def __call__(self, images: NDArray[np.uint8]) -> Answer:
        """Features of uint8 (n, H, W, C), and class scores if the network has them.

        Raises:
            DataError: it takes images of another shape, or returns something other than (n, D).
            EngineError: it fails on them.
            MemoryLimitError: they need more than `max_memory`; give fewer.
            KeyboardInterrupt: within one node of the network.
        """
        given = images.transpose(0, 3, 1, 2)
        for size, wanted in zip(given.shape[1:], self._input.shape[1:], strict=True):
            if isinstance(wanted, int) and size != wanted:
                expected = ", ".join(str(part) for part in self._input.shape[1:])
                raise DataError(
                    f"Images have shape {given.shape[1:]} (C, H, W), but {self.path} takes ({expected}); resize them, "
                    "or give another feature network."
                )
        scaled = given if self._input.type == "tensor(uint8)" else given.astype(np.float32) / np.float32(127.5) - 1
        try:
            answers = self._run({self._input.name: np.ascontiguousarray(scaled)})
        except Exception as error:  # its exceptions share no base class
            raise struck(error, self._budget) or EngineError(
                f"{self.path} failed: {' '.join(str(error).split())}"
            ) from error
        for name, answer in zip(self._outputs, answers, strict=True):
            if answer.ndim != 2 or len(answer) != len(images):
                raise DataError(f"{self.path} gave {name} of shape {answer.shape}; expected ({len(images)}, D).")
        return (answers[0], answers[1]) if len(answers) > 1 else answers[0]

    def _run(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs; Ctrl-C ends it after the node it is in."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        return interruptible(
            lambda: self._session.run(self._outputs, feed, options), lambda: setattr(options, "terminate", True)
        )
