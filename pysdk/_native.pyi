"""
The native half of pysdk: the reverse chain, its step table and the CPU engine.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing
import typing_extensions

__all__: list[str] = [
    "BOUND_COLUMNS",
    "NUMERICS_VERSION",
    "STEP_COLUMNS",
    "Bound",
    "CaptureError",
    "Chain",
    "Cost",
    "CudaChain",
    "CudaError",
    "CudaMemoryError",
    "Denoiser",
    "Device",
    "DeviceArray",
    "DeviceScope",
    "FloatState",
    "InterruptibleNetwork",
    "Network",
    "Program",
    "StepTable",
    "Stop",
    "StoppedError",
    "cuda_device",
    "cuda_status",
    "isa",
]

class FloatState:
    """
    In its `with` block this thread rounds to nearest, keeps subnormal numbers and traps nothing.

    What was set before comes back at the end. Every function of this module that computes does so by itself.
    """
    def __enter__(self) -> None: ...
    def __exit__(self, kind: typing.Any, error: typing.Any, trace: typing.Any) -> None: ...
    def __init__(self) -> None: ...

class StoppedError(RuntimeError):
    """
    A call was left early because of its Stop.
    """

class Stop:
    """
    A wish that calls end early, of any thread, and a time at which they do.
    """
    def __init__(self, seconds: typing.SupportsFloat | typing.SupportsIndex | None = None) -> None:
        """
        Count from now.

        Args:
            seconds: after which calls end; never when None.

        Raises:
            ValueError: seconds is not a finite number above 0.
        """
    def ask(self) -> None:
        """
        Let the calls that have it raise StoppedError soon, and later ones at once.
        """
    @property
    def asked(self) -> bool:
        """
        Whether `ask` was called.
        """
    @property
    def late(self) -> bool:
        """
        Whether the time is up.
        """

class Denoiser:
    """
    A network that a chain runs natively.
    """

class InterruptibleNetwork(Denoiser):
    """
    A foreign library's network that runs on a thread of its own, so that its caller can leave it.
    """
    def __call__(self) -> None:
        """
        Run the network once.

        Raises:
            RuntimeError: it is running already.
        """
    def __init__(
        self, run: collections.abc.Callable[[], typing.Any], interrupt: collections.abc.Callable[[bool], typing.Any]
    ) -> None:
        """
        Args:
            run: runs the network once on buffers bound beforehand; releases the GIL meanwhile.
            interrupt: with True makes a run in progress, or the next one, raise soon; with False no more.
        """

class StepTable:
    """
    The rows of a chain and what all its images share: checked when made, never changed, shared by chains.
    """
    def __init__(
        self,
        rows: numpy.typing.NDArray[numpy.float32],
        *,
        clip: str = "none",
        clip_limit: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        clip_ratio: typing.SupportsFloat | typing.SupportsIndex = 0.995,
        clip_max: typing.SupportsFloat | typing.SupportsIndex = ...,
        learned_variance: bool = False,
        init_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    ) -> None:
        """
        Check and copy a table.

        Args:
            rows: float32 (K, len(STEP_COLUMNS)), from StepTable.float32().
            clip: 'none', 'clamp' to [-clip_limit, clip_limit] or 'dynamic' threshold.
            clip_limit: above 0.
            clip_ratio: quantile of the dynamic threshold, in (0, 1].
            clip_max: upper bound of the dynamic threshold, at least 1.
            learned_variance: the second half of the network's channels is v; needs out_channels = 2C.
            init_scale: the chain starts from init_scale * z_0.

        Raises:
            TypeError: rows has another dtype.
            ValueError: a shape or value is one that no chain can run.
        """
    def __len__(self) -> int:
        """
        Rows of the table.
        """

class Chain:
    """
    The reverse chain on the CPU: rows of a step table over one batch of images.

    NB = 2 * batch when guided (conditional half first), else batch. A chain belongs to one
    thread at a time; a call while another is running raises RuntimeError.
    """
    @staticmethod
    def most_bytes(
        *,
        batch: typing.SupportsInt | typing.SupportsIndex,
        shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        out_channels: typing.SupportsInt | typing.SupportsIndex | None = None,
        guided: bool = False,
        classifier: bool = False,
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
        rows: typing.SupportsInt | typing.SupportsIndex,
    ) -> int:
        """
        Bytes of such a chain with a table of so many rows, whatever it is begun with.

        Raises:
            ValueError: a size is out of range.
        """
    def __init__(
        self,
        *,
        batch: typing.SupportsInt | typing.SupportsIndex,
        shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        out_channels: typing.SupportsInt | typing.SupportsIndex | None = None,
        guided: bool = False,
        classifier: bool = False,
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> None:
        """
        Allocate a chain.

        Args:
            batch: images per batch.
            shape: (C, H, W) of one image.
            out_channels: the network's, C or 2C; C when None.
            guided: classifier-free guidance, the network runs on 2 * batch images.
            classifier: rows may use the gradient of a classifier.
            threads: for the update; used from 32768 elements per batch on.

        Raises:
            ValueError: a size is out of range.
            MemoryError: the buffers do not fit in memory.
        """
    def advance(self, count: typing.SupportsInt | typing.SupportsIndex, stop: Stop | None = None) -> int:
        """
        Run up to `count` rows and return the number of rows done so far.

        The GIL is released except in the denoiser. When the denoiser, the noise or a signal handler raises, the
        exception comes out here, the rows before stay done and the failed row may be run again; only of a
        batch of 2^26 elements or more a row may be left halfway, and then the chain needs a new begin.

        Raises:
            StoppedError: `stop` was asked for, or its time is up.
            RuntimeError: no denoiser, no rows, or the chain is running already.
        """
    def attach(
        self,
        denoiser: Denoiser | collections.abc.Callable[[], typing.Any],
        *,
        conditional: Denoiser | collections.abc.Callable[[], typing.Any] | None = None,
        classifier: Denoiser | collections.abc.Callable[[], typing.Any] | None = None,
    ) -> None:
        """
        Set the networks: Denoisers, or callables without arguments whose results are ignored.

        Args:
            denoiser: reads network_input, network_time and network_labels and fills network_output.
            conditional: the same for the first `batch` images only, the conditional half; called in
                unguided rows of a guided chain, where the denoiser is called without it.
            classifier: reads the conditional half too and fills classifier_gradient; called in rows
                with a grad column.

        Raises:
            ValueError: the chain is not guided, or was made without a classifier.
            RuntimeError: the chain is running.
        """
    def begin(
        self,
        table: StepTable,
        *,
        seeds: numpy.typing.NDArray[numpy.uint64],
        images: numpy.typing.NDArray[numpy.uint64],
        labels: numpy.typing.NDArray[numpy.int64] | None = None,
        null_label: typing.SupportsInt | typing.SupportsIndex = -1,
        guidance: numpy.typing.NDArray[numpy.float32] | None = None,
        classifier_scale: numpy.typing.NDArray[numpy.float32] | None = None,
        initial: numpy.typing.NDArray[numpy.float32] | None = None,
        known: numpy.typing.NDArray[numpy.float32] | None = None,
        keep: numpy.typing.NDArray[numpy.uint8] | None = None,
        noise: collections.abc.Callable[[int], numpy.typing.NDArray[numpy.float32]] | None = None,
    ) -> None:
        """
        Start a chain from its first row; on an error the previous one stays as it was.

        Args:
            table: the rows, and what all images share.
            seeds: uint64 (batch,).
            images: uint64 (batch,), indices in the galleries of their seeds.
            labels: int64 (batch,); None means null_label for all.
            null_label: label of the unconditional half.
            guidance: float32 (batch,), weights w; needed if and only if the chain is guided.
            classifier_scale: float32 (batch,), needed if and only if the chain has a classifier.
            initial: float32 (batch, C, H, W), x to start from instead of init_scale * z_0.
            known: float32 (batch, C, H, W), the image that rows with known columns keep.
            keep: uint8 (batch, C, H, W), not 0 where they keep it; given together with known.
            noise: called with the draw number (0: x_T, k + 1: row k, 2^31 + k: the known region in row k),
                returns float32 (batch, C, H, W) to use instead of Philox.

        Raises:
            TypeError: an array has another dtype.
            ValueError: a shape or value does not fit.
            RuntimeError: the chain is running.
        """
    @property
    def classifier_gradient(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        float32 (batch, C, H, W), to be filled by the classifier. ValueError without one.
        """
    @property
    def denoised(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        float32 (batch, C, H, W), read-only view of D of the last row.
        """
    @property
    def length(self) -> int:
        """
        Rows of the table; 0 before begin.
        """
    @property
    def network_input(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        float32 (NB, C, H, W), c_in * x; memory of the chain, the same for its life.
        """
    @property
    def network_labels(self) -> numpy.typing.NDArray[numpy.int64]:
        """
        int64 (NB,).
        """
    @property
    def network_output(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        float32 (NB, out_channels, H, W), to be filled by the denoiser.
        """
    @property
    def network_time(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        float32 (1,), t of the row.
        """
    @property
    def position(self) -> int:
        """
        Rows done so far.
        """
    @property
    def x(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        float32 (batch, C, H, W), read-only view of the current sample.
        """

class CudaError(RuntimeError):
    pass

class CaptureError(CudaError):
    pass

class CudaMemoryError(MemoryError):
    pass

class DeviceArray:
    """
    An array in device memory, C-contiguous; `torch.from_dlpack` and others see it without a copy.

    It shares its memory with whoever made it and keeps it alive.
    """
    def __dlpack__(
        self,
        *,
        stream: typing.Any = None,
        max_version: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]
        | None = None,
        dl_device: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]
        | None = None,
        copy: bool | None = None,
    ) -> typing_extensions.CapsuleType:
        """
        Return a DLPack capsule. What the array holds is complete, so no stream has to wait for it.
        """
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __len__(self) -> int: ...
    def head(self, count: typing.SupportsInt | typing.SupportsIndex) -> DeviceArray:
        """
        Return a view of the first `count` items. ValueError if there are not as many.
        """
    def numpy(self) -> numpy.typing.NDArray[typing.Any]:
        """
        Return a copy on the host, a numpy array.
        """
    @property
    def dtype(self) -> str:
        """
        Name of the numpy dtype.
        """
    @property
    def pointer(self) -> int:
        """
        Address on the device.
        """
    @property
    def shape(self) -> tuple[int, ...]:
        """
        Sizes.
        """

class DeviceScope:
    """
    What `Device.current` returns, for `with`, once.
    """
    def __enter__(self) -> None: ...
    def __exit__(self, arg0: typing.Any, arg1: typing.Any, arg2: typing.Any) -> None: ...

class Device:
    """
    A device that chains run on; see `cuda_device`.
    """
    def current(self) -> DeviceScope:
        """
        Return a `with` block in which this is the calling thread's device, on which libraries allocate.
        """
    def empty(
        self, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], dtype: str
    ) -> DeviceArray:
        """
        Return a new array of zeros, 'float32' or 'uint8'.

        Raises:
            ValueError: another dtype, or a size is out of range.
            MemoryError: the device has no room for it.
        """
    @property
    def memory(self) -> tuple[int, int]:
        """
        Bytes free, and bytes in all.
        """
    @property
    def name(self) -> str:
        """
        Number, product and architecture.
        """

class CudaChain:
    """
    The reverse chain on a device; see `Chain`, whose arithmetic and bits it has.

    Networks get the handle of the CUDA stream to enqueue themselves in. A chain belongs to one thread at
    a time; a call while another is running raises RuntimeError.
    """
    def __init__(
        self,
        device: Device,
        *,
        batch: typing.SupportsInt | typing.SupportsIndex,
        shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        out_channels: typing.SupportsInt | typing.SupportsIndex | None = None,
        guided: bool = False,
        path: str = "auto",
    ) -> None:
        """
        Allocate a chain.

        Args:
            device: from `cuda_device`, or a `SimulatedDevice`.
            batch, shape, out_channels, guided: as for `Chain`.
            path: 'while' for one launch per chain, 'step' for one per row, 'plain' for plain calls; 'auto' takes
                the first of these that the driver and the networks allow, any other is taken or an error.

        Raises:
            ValueError: a size is out of range, or there is no such path.
            MemoryError: the device has no room for the buffers.
            CudaError: the device failed.
        """
    def advance(self, count: typing.SupportsInt | typing.SupportsIndex, stop: Stop | None = None) -> int:
        """
        Launch up to `count` rows, wait for them, and return the number of rows done so far.
        """
    def attach(
        self,
        denoiser: collections.abc.Callable[[int], typing.Any],
        *,
        conditional: collections.abc.Callable[[int], typing.Any] | None = None,
    ) -> None:
        """
        Set the networks, as for `Chain`: callables with the handle of a CUDA stream, in which they enqueue
        one run; the chain's device is the current one meanwhile. While the stream is captured they may do
        nothing else. A result of False is a failure.

        Raises:
            ValueError: the chain is not guided.
            RuntimeError: the chain is running.
        """
    def begin(
        self,
        table: StepTable,
        *,
        seeds: numpy.typing.NDArray[numpy.uint64],
        images: numpy.typing.NDArray[numpy.uint64],
        labels: numpy.typing.NDArray[numpy.int64] | None = None,
        null_label: typing.SupportsInt | typing.SupportsIndex = -1,
        guidance: numpy.typing.NDArray[numpy.float32] | None = None,
        classifier_scale: numpy.typing.NDArray[numpy.float32] | None = None,
        initial: numpy.typing.NDArray[numpy.float32] | None = None,
        known: numpy.typing.NDArray[numpy.float32] | None = None,
        keep: numpy.typing.NDArray[numpy.uint8] | None = None,
        noise: collections.abc.Callable[[int], numpy.typing.NDArray[numpy.float32]] | None = None,
    ) -> None:
        """
        Start a chain from its first row; on an error the previous one stays as it was.

        Args:
            table: the rows, and what all images share.
            seeds: uint64 (batch,).
            images: uint64 (batch,), indices in the galleries of their seeds.
            labels: int64 (batch,); None means null_label for all.
            null_label: label of the unconditional half.
            guidance: float32 (batch,), weights w; needed if and only if the chain is guided.
            classifier_scale: float32 (batch,), needed if and only if the chain has a classifier.
            initial: float32 (batch, C, H, W), x to start from instead of init_scale * z_0.
            known: float32 (batch, C, H, W), the image that rows with known columns keep.
            keep: uint8 (batch, C, H, W), not 0 where they keep it; given together with known.
            noise: called with the draw number (0: x_T, k + 1: row k, 2^31 + k: the known region in row k),
                returns float32 (batch, C, H, W) to use instead of Philox.

        Raises:
            TypeError: an array has another dtype.
            ValueError: a shape or value does not fit.
            RuntimeError: the chain is running.
        """
    def bytes(
        self,
        to: DeviceArray | None,
        *,
        first: typing.SupportsInt | typing.SupportsIndex = 0,
        images: typing.SupportsInt | typing.SupportsIndex,
        value_range: tuple[typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex] = (
            -1.0,
            1.0,
        ),
    ) -> int | None:
        """
        Convert the first `images` of x to bytes, as `pysdk.images.to_uint8`, on the device.

        Args:
            to: uint8 (N, H, W, C), filled from image `first` on; None only looks for broken images.
            images: how many.
            value_range: (low, high), what becomes 0 and 255.

        Returns:
            The first image that holds NaN or infinity, or None.
        """
    def copy_x(
        self,
        to: DeviceArray,
        *,
        first: typing.SupportsInt | typing.SupportsIndex = 0,
        images: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        Copy the first `images` of x to images `first`, ... of a float32 array on the same device.
        """
    def keep_snapshots(
        self, every: typing.SupportsInt | typing.SupportsIndex, slots: typing.SupportsInt | typing.SupportsIndex
    ) -> None:
        """
        From the next begin on, keep x and D after every `every` rows and the last, the newest `slots` of
        them; 0 and 0 for none.
        """
    def launch(self, count: typing.SupportsInt | typing.SupportsIndex, stop: Stop | None = None) -> None:
        """
        Enqueue up to `count` rows. On the path 'while' this is one launch and returns at once.

        Raises:
            RuntimeError: no denoiser, no rows, or the chain is running already.
            CaptureError: the path asked for cannot be taken.
            CudaError: the device failed; no row is passed over in silence.
        """
    def snapshot(
        self, row: typing.SupportsInt | typing.SupportsIndex, *, denoised: bool = False
    ) -> numpy.typing.NDArray[numpy.float32]:
        """
        Return x, or D, after `row` rows: float32 (batch, C, H, W), on the host. The chain may be running.

        Raises:
            ValueError: there is no such snapshot, or a newer one took its place.
        """
    def wait(
        self,
        row: typing.SupportsInt | typing.SupportsIndex,
        seconds: typing.SupportsFloat | typing.SupportsIndex = ...,
        stop: Stop | None = None,
    ) -> int:
        """
        Wait until `row` rows are done, all that were launched, or the time is over; return the rows done.

        KeyboardInterrupt, or another exception of a signal, and `stop`, which raises StoppedError,
        stop the chain within 16 rows.
        """
    @property
    def denoised(self) -> DeviceArray:
        """
        float32 (batch, C, H, W), D of the last row.
        """
    @property
    def length(self) -> int:
        """
        Rows of the table; 0 before begin.
        """
    @property
    def memory(self) -> int:
        """
        Bytes of device memory in use, without the networks'.
        """
    @property
    def network_input(self) -> DeviceArray:
        """
        float32 (NB, C, H, W), c_in * x; memory of the chain, the same for its life.
        """
    @property
    def network_labels(self) -> DeviceArray:
        """
        int64 (NB,).
        """
    @property
    def network_output(self) -> DeviceArray:
        """
        float32 (NB, out_channels, H, W), to be filled by the denoiser.
        """
    @property
    def network_time(self) -> DeviceArray:
        """
        float32 (1,), t of the row.
        """
    @property
    def path(self) -> str:
        """
        Path of the last launch: 'while', 'step' or 'plain'.
        """
    @property
    def position(self) -> int:
        """
        Rows done so far, also while the chain runs.
        """
    @property
    def stream(self) -> int:
        """
        Handle of the CUDA stream.
        """
    @property
    def why(self) -> str:
        """
        Why not the path before it; empty if it is the best one, or the one asked for.
        """
    @property
    def x(self) -> DeviceArray:
        """
        float32 (batch, C, H, W), the current sample.
        """

class Bound:
    """
    Terms of the variational bound of one batch of images on the CPU.

    A bound belongs to one thread at a time; a call while another is running raises RuntimeError.
    """
    @staticmethod
    def most_bytes(
        *,
        batch: typing.SupportsInt | typing.SupportsIndex,
        shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        out_channels: typing.SupportsInt | typing.SupportsIndex | None = None,
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
        rows: typing.SupportsInt | typing.SupportsIndex,
    ) -> int:
        """
        Bytes of such a bound with so many rows, whatever it is begun with.

        Raises:
            ValueError: a size is out of range.
        """
    def __init__(
        self,
        *,
        batch: typing.SupportsInt | typing.SupportsIndex,
        shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        out_channels: typing.SupportsInt | typing.SupportsIndex | None = None,
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> None:
        """
        Allocate a bound.

        Args:
            batch: images per batch.
            shape: (C, H, W) of one image.
            out_channels: the network's, C or 2C; C when None.
            threads: for everything but the network.

        Raises:
            ValueError: a size is out of range.
            MemoryError: the buffers do not fit in memory.
        """
    def advance(self, count: typing.SupportsInt | typing.SupportsIndex, stop: Stop | None = None) -> int:
        """
        Run up to `count` rows and return the number of rows done so far.

        The GIL is released except in the denoiser. When the denoiser or a signal handler raises, the
        exception comes out here and the failed row may be run again.

        Raises:
            StoppedError: `stop` was asked for, or its time is up.
            RuntimeError: no denoiser, no rows, or the bound is running already.
        """
    def attach(self, denoiser: Denoiser | collections.abc.Callable[[], typing.Any]) -> None:
        """
        Set the network: a Denoiser, or a callable without arguments, that reads network_input, network_time and
        network_labels and fills network_output. Its result is ignored.
        """
    def begin(
        self,
        rows: numpy.typing.NDArray[numpy.float64],
        *,
        pixels: numpy.typing.NDArray[numpy.uint8],
        seeds: numpy.typing.NDArray[numpy.uint64],
        images: numpy.typing.NDArray[numpy.uint64],
        learned_variance: bool = False,
        clip_limit: typing.SupportsFloat | typing.SupportsIndex,
        value_low: typing.SupportsFloat | typing.SupportsIndex = -1.0,
        value_high: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        labels: numpy.typing.NDArray[numpy.int64] | None = None,
    ) -> None:
        """
        Start from the first row; on an error the previous request stays as it was.

        Row, in float64 but for x_t: x_t = signal x_0 + noise z with z of draw 0xF0000000 + t;
        D = clamp(p x_t + q f); log variance = log_high, or with learned variance
        l log_high + (1 - l) log_low, l = (v + 1) / 2. The term is
        KL(N(from_x0 x_0, exp(log_posterior)) || N(from_x0 D, exp(log variance))), or with decoder = 1
        -log of the mass of N(D, exp(log variance)) in the bin of x_0.

        Args:
            rows: float64 (K, len(BOUND_COLUMNS)).
            pixels: uint8 (batch, C, H, W).
            seeds: uint64 (batch,).
            images: uint64 (batch,), indices in the galleries of their seeds.
            learned_variance: the second half of the network's channels is v; needs out_channels = 2C.
            clip_limit: for D, above 0; infinity for none.
            value_low, value_high: what the levels 0 and 255 are to the network.
            labels: int64 (batch,).

        Raises:
            TypeError: an array has another dtype.
            ValueError: a shape or value does not fit.
            RuntimeError: the bound is running.
        """
    @property
    def errors(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 (batch, K), sum of (x_0 - D)^2, a copy; 0 in rows not done.
        """
    @property
    def length(self) -> int:
        """
        Rows of the request; 0 before begin.
        """
    @property
    def network_input(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        float32 (batch, C, H, W), x_t; memory of the bound, the same for its life.
        """
    @property
    def network_labels(self) -> numpy.typing.NDArray[numpy.int64]:
        """
        int64 (batch,).
        """
    @property
    def network_output(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        float32 (batch, out_channels, H, W), to be filled by the denoiser.
        """
    @property
    def network_time(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        float32 (1,), t of the row.
        """
    @property
    def position(self) -> int:
        """
        Rows done so far.
        """
    @property
    def terms(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 (batch, K), nats summed over an image's elements, a copy; 0 in rows not done.
        """

class Cost:
    """
    What a program takes of a machine.
    """
    @property
    def loading(self) -> int:
        """
        Bytes more while they are packed.
        """
    @property
    def moved(self) -> float:
        """
        Floats that the ops of one step for the batch read and write.
        """
    @property
    def multiplications(self) -> float:
        """
        Of all matrix products of one step for the batch, as they are made: Winograd's are fewer.
        """
    @property
    def network(self) -> int:
        """
        Bytes of a network for the batch: activations and work space.
        """
    @property
    def weights(self) -> int:
        """
        Bytes of the packed weights.
        """

class Program:
    """
    A network compiled to ops for the CPU engine; checked whole when it is made.

    Nothing large is allocated before `pack`, which comes before the first network.
    Several networks, on several threads, may be bound to one program; they share its weights.
    """
    def __init__(
        self,
        *,
        shape: tuple[
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ],
        out_channels: typing.SupportsInt | typing.SupportsIndex,
        tensors: list[tuple[int, int, int, bool]],
        weights: list[tuple[collections.abc.Sequence[int], list[tuple[int, int, int, int, bool]]]],
        ops: list[dict[str, typing.Any]],
        sources: collections.abc.Sequence[typing_extensions.Buffer],
    ) -> None:
        """
        Check a program.

        Args:
            shape: (C, H, W) of an image.
            out_channels: the output's.
            tensors: (channels, height, width, shared) each.
            weights: (shape, parts) each, a part being (source, byte offset, rows, columns, transposed).
            ops: the fields of each by name, its own name being `op`.
            sources: buffers of bytes that hold the weights; kept until they are packed.

        Raises:
            ValueError: the program is not one; the message names the op and the field.
        """
    def cost(
        self,
        *,
        batch: typing.SupportsInt | typing.SupportsIndex,
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> Cost:
        """
        What it takes to run on so many images, computed from its structure alone.

        Raises:
            ValueError: the batch is too large for any machine.
        """
    def pack(self, *, threads: typing.SupportsInt | typing.SupportsIndex = 1) -> None:
        """
        Read the weights and pack them; once.

        Raises:
            MemoryError: they do not fit in memory.
        """
    @property
    def weight_bytes(self) -> int:
        """
        Bytes of the packed weights, 0 before they are.
        """

class Network(Denoiser):
    """
    A program on the buffers of a chain, with its own threads.
    """
    def __call__(self) -> None:
        """
        Run the network once.

        Raises:
            RuntimeError: it is running already.
        """
    def __init__(
        self,
        program: Program,
        *,
        network_input: numpy.typing.NDArray[numpy.float32],
        network_time: numpy.typing.NDArray[numpy.float32],
        network_labels: numpy.typing.NDArray[numpy.int64],
        network_output: numpy.typing.NDArray[numpy.float32],
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> None:
        """
        Bind a packed program to arrays, which are used in place.

        Args:
            network_input: float32 (NB, C, H, W), read.
            network_time: float32 (1,), read.
            network_labels: int64 (NB,), read if the network takes labels.
            network_output: float32 (NB, out_channels, H, W), filled.
            threads: that compute; they do not change a bit of the result.
        """
    def profile(self) -> list[float]:
        """
        Run the network once and return the seconds of each op.
        """
    @property
    def bytes(self) -> int:
        """
        Bytes of activations and work space.
        """

def cuda_device(index: typing.SupportsInt | typing.SupportsIndex) -> Device:
    """
    Return a device by its number.

    Raises:
        CudaError: there is none, or this build has no code for it.
    """

def cuda_status() -> tuple[bool, int, str]:
    """
    Return whether this build has CUDA, the number of devices, and a line that says why there are none or what there is.
    """

def isa() -> str:
    """
    Return the instruction set of the kernels in use: 'avx512', 'avx2' or 'baseline'.

    The environment variable PYSDK_ISA forces one; all of them give the same bits.
    """

BOUND_COLUMNS: tuple[str, ...]
NUMERICS_VERSION: int = 1
STEP_COLUMNS: tuple[str, ...]
