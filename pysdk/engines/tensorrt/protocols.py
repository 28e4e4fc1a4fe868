"""What is used of TensorRT's Python interface, whose packages have no types, so that type checkers see it.

It is the same in `tensorrt` and `tensorrt_rtx` but for what says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class TensorrtContext(Protocol):
    """What is used of trt.IExecutionContext."""

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool: ...

    def set_tensor_address(self, name: str, memory: int) -> bool: ...

    def infer_shapes(self) -> list[str]:
        """The inputs whose shape is still missing."""

    def update_device_memory_size_for_shapes(self) -> int:
        """The bytes of device memory that a run with the shapes set needs."""

    def set_device_memory(self, memory: int, size: int) -> None: ...

    def execute_async_v3(self, stream_handle: int) -> bool: ...


class TensorrtEngine(Protocol):
    """What is used of trt.ICudaEngine."""

    @property
    def num_io_tensors(self) -> int: ...

    def get_tensor_name(self, index: int) -> str: ...

    def get_tensor_mode(self, name: str) -> Any: ...

    def get_tensor_dtype(self, name: str) -> Any: ...

    def get_tensor_shape(self, name: str) -> Sequence[int]: ...

    def get_tensor_format(self, name: str) -> Any: ...

    def get_tensor_location(self, name: str) -> Any: ...

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]: ...

    def create_runtime_config(self) -> Any:
        """TensorRT-RTX alone has this."""

    def create_execution_context(self, strategy_or_config: Any) -> TensorrtContext | None: ...

    def create_engine_inspector(self) -> Any: ...
