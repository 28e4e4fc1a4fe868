"""The forward process: betas -> alphas_cumprod, in float64.

Notation of the papers: beta_t, alpha_t = 1 - beta_t, abar_t = alpha_0 * ... * alpha_t. Timesteps count from 0 as in the
arrays, so the "abar before timestep 0" is 1 (clean data).

    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)                                        (DDPM, eq. 4)

References:
    DDPM: Ho et al., Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239
    iDDPM: Nichol & Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pysdk.checks import whole_number
from pysdk.errors import OptionError, ScheduleError
from pysdk.machine.float_state import standard_floats

Float64Array = NDArray[np.float64]

MAX_TIMESTEPS = 100_000
"""The most that a schedule, or a plan, can have."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """The variances of a discrete forward process.

    Every array is float64 of shape (T,), read-only, indexed by the training timestep.

    Args:
        betas: T variances in (0, 1), copied. The last one may be exactly 1: zero terminal SNR
            (Lin et al., 2023, https://arxiv.org/abs/2305.08891).

    Raises:
        ScheduleError: `betas` is not a 1-D array of such numbers, or so small or so large that two neighbouring
            `alphas_cumprod` cannot be told apart in float64.
    """

    betas: Float64Array

    @standard_floats
    def __post_init__(self) -> None:
        betas = _checked_betas(self.betas)
        object.__setattr__(self, "betas", betas)
        rising = np.diff(self.alphas_cumprod, prepend=1.0) >= 0
        if rising.any():
            index = int(np.argmax(rising))
            raise ScheduleError(
                f"alphas_cumprod must fall at every timestep but stays {float(self.alphas_cumprod[index])} at {index}, "
                f"where beta is {float(betas[index])}; use a larger beta, or fewer timesteps if the signal has ended"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made anew: checked and read-only as well."""
        return Schedule, (self.betas,)

    def __len__(self) -> int:
        """T, the number of training timesteps."""
        return len(self.betas)

    @classmethod
    def from_betas(cls, betas: ArrayLike) -> Schedule:
        """A schedule from any sequence of T betas; the class says what is checked."""
        return cls(betas)  # type: ignore[arg-type]

    @classmethod
    @standard_floats
    def linear(cls, timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """beta_t from `beta_start` to `beta_end` in equal steps (DDPM, section 4)."""
        return cls(beta_start + (beta_end - beta_start) * _ramp(timesteps))

    @classmethod
    @standard_floats
    def scaled_linear(cls, timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """sqrt(beta_t) from sqrt(`beta_start`) to sqrt(`beta_end`) in equal steps (latent diffusion, 2112.10752)."""
        low = math.sqrt(_positive("beta_start", beta_start))
        high = math.sqrt(_positive("beta_end", beta_end))
        return cls((low + (high - low) * _ramp(timesteps)) ** 2)

    @classmethod
    @standard_floats
    def sigmoid(cls, timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """beta_t = beta_start + (beta_end - beta_start) / (1 + exp(-u)), u from -6 to 6 (GeoDiff, 2203.02923)."""
        return cls(beta_start + (beta_end - beta_start) / (1 + np.exp(6 - 12 * _ramp(timesteps))))

    @classmethod
    @standard_floats
    def sine_squared(cls, timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """beta_t = beta_start + (beta_end - beta_start) sin^2(pi/2 * t/(T-1)): a ramp that is flat at both ends."""
        return cls(beta_start + (beta_end - beta_start) * np.sin(0.5 * np.pi * _ramp(timesteps)) ** 2)

    @classmethod
    @standard_floats
    def cosine(cls, timesteps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
        """abar falls along a squared cosine (iDDPM, eq. 17).

        abar_t = f(t)/f(0), f(t) = cos^2(pi/2 * (t/T + s)/(1 + s)); beta_t = min(1 - abar_t/abar_{t-1}, max_beta). The
        clip acts on the last timesteps only, where abar would reach 0.

        Raises:
            OptionError: `s` is negative or `max_beta` is outside (0, 1].
        """
        if not (math.isfinite(s) and s >= 0):
            raise OptionError(f"s is {s!r}, expected a finite number >= 0; the paper uses 0.008")
        if not 0 < max_beta <= 1:
            raise OptionError(f"max_beta is {max_beta!r}, expected a number in (0, 1]; the paper uses 0.999")
        return cls(_capped_betas(np.cos(0.5 * np.pi * (_grid(timesteps) + s) / (1 + s)) ** 2, max_beta))

    @classmethod
    @standard_floats
    def laplace(cls, timesteps: int = 1000) -> Schedule:
        """The log of the signal-to-noise ratio is Laplace distributed over training (2407.03297).

        abar_t = f(t/T)/f(0), f(u) = sqrt(sigmoid(lambda(u))), lambda(u) = -1/2 sign(1/2 - u) log(1 - |1 - 2u| + 1e-6);
        beta_t = min(1 - abar_t/abar_{t-1}, 0.999). The root and the 1e-6 are diffusers'.
        """
        grid = _grid(timesteps)
        log_snr = -0.5 * np.copysign(1.0, 0.5 - grid) * np.log(1 - np.abs(1 - 2 * grid) + 1e-6)
        return cls(_capped_betas(np.sqrt(1 / (1 + np.exp(-log_snr))), 0.999))

    @standard_floats
    def with_zero_terminal_snr(self) -> Schedule:
        """The schedule shifted and scaled so that no data is left at T-1 (2305.08891, Algorithm 1).

        S'_t = (S_t - S_{T-1}) S_0 / (S_0 - S_{T-1}) with S = sqrt(abar): S'_0 = S_0 and S'_{T-1} = 0.

        Raises:
            ScheduleError: there is only one timestep.
        """
        if len(self) == 1:
            raise ScheduleError("a schedule of one timestep has no other signal to keep at zero terminal SNR")
        signal = np.sqrt(self.alphas_cumprod)
        signal = (signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1]))
        return Schedule(1 - signal**2 / np.append(1.0, signal[:-1] ** 2))

    @cached_property
    def alphas(self) -> Float64Array:
        """1 - betas."""
        return _read_only(1 - self.betas)

    @cached_property
    def alphas_cumprod(self) -> Float64Array:
        """abar_t = alpha_0 * ... * alpha_t, falling within (0, 1); the last may be 0."""
        return _read_only(np.cumprod(self.alphas, dtype=np.float64))

    @cached_property
    def alphas_cumprod_prev(self) -> Float64Array:
        """abar_{t-1}, with 1 in front: the data."""
        return _read_only(np.append(1.0, self.alphas_cumprod[:-1]))

    @cached_property
    def snr(self) -> Float64Array:
        """Signal-to-noise ratio abar_t / (1 - abar_t)."""
        return _read_only(self.alphas_cumprod / (1 - self.alphas_cumprod))

    @cached_property
    def posterior_variance(self) -> Float64Array:
        """beta_tilde_t = (1 - abar_{t-1}) / (1 - abar_t) * beta_t, variance of q(x_{t-1} | x_t, x_0) (DDPM, eq. 7)."""
        return _read_only((1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod) * self.betas)

    @cached_property
    def posterior_log_variance_clipped(self) -> Float64Array:
        """log(posterior_variance), its first value (log 0) replaced by the second (iDDPM, section 3.1).

        A schedule of one timestep has no second value; its log(beta_0) stands in.
        """
        variance = self.posterior_variance.copy()
        variance[0] = variance[1] if len(self) > 1 else self.betas[0]
        return _read_only(np.log(variance))

    @cached_property
    def posterior_mean_coefficients(self) -> tuple[Float64Array, Float64Array]:
        """(c_0, c_t) with E[x_{t-1} | x_t, x_0] = c_0 x_0 + c_t x_t (DDPM, eq. 7).

        c_0 = sqrt(abar_{t-1}) beta_t / (1 - abar_t), c_t = sqrt(alpha_t) (1 - abar_{t-1}) / (1 - abar_t). In the first
        row they are (1, 0) up to rounding; they are set to exactly that, so that a chain ends on its estimate of x_0.
        """
        noise = 1 - self.alphas_cumprod
        from_x0 = np.sqrt(self.alphas_cumprod_prev) * self.betas / noise
        from_xt = np.sqrt(self.alphas) * (1 - self.alphas_cumprod_prev) / noise
        from_x0[0], from_xt[0] = 1.0, 0.0
        return _read_only(from_x0), _read_only(from_xt)

    def respace(self, timesteps: NDArray[np.int64]) -> Schedule:
        """The process at only some of its timesteps: beta'_i = 1 - abar_i / abar_{i-1} (iDDPM, section 4).

        Args:
            timesteps: the kept timesteps, ascending, int64 (K,), all in [0, T).

        Returns:
            A schedule of K timesteps whose `alphas_cumprod` are those of `timesteps`.
        """
        kept = self.alphas_cumprod[timesteps]
        return Schedule(1 - kept / np.append(1.0, kept[:-1]))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": Schedule.linear,
    "scaled_linear": Schedule.scaled_linear,
    "cosine": Schedule.cosine,
    "sigmoid": Schedule.sigmoid,
    "laplace": Schedule.laplace,
    "sin2": Schedule.sine_squared,
}
"""The schedules known by name to training and plans."""


def make_schedule(name: str, **options: Any) -> Schedule:
    """The schedule called `name`, one of `SCHEDULES`, with the keyword arguments of its constructor.

    Raises:
        OptionError: there is no such schedule, or it has no such option.
        ScheduleError: the options do not give a schedule.
    """
    if name not in SCHEDULES:
        raise OptionError(f"schedule is {name!r}, expected one of {sorted(SCHEDULES)} (or use Schedule.from_betas)")
    constructor = SCHEDULES[name]
    known = list(inspect.signature(constructor).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise OptionError(f"schedule {name!r} has no option {unknown[0]!r}; it has {known}")
    return constructor(**options)


def _ramp(timesteps: int) -> Float64Array:
    """`timesteps` numbers from 0 to 1."""
    return np.linspace(0.0, 1.0, whole_number("timesteps", timesteps, 1, MAX_TIMESTEPS), dtype=np.float64)


def _grid(timesteps: int) -> Float64Array:
    """`timesteps` + 1 numbers from 0 to 1: t/T."""
    return np.arange(whole_number("timesteps", timesteps, 1, MAX_TIMESTEPS) + 1) / timesteps


def _capped_betas(signal: Float64Array, max_beta: float) -> Float64Array:
    """min(1 - signal_{t+1} / signal_t, max_beta), float64 (T,), from T + 1 values that fall."""
    return np.minimum(1 - signal[1:] / signal[:-1], max_beta)


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise OptionError(f"{name} is {value!r}, expected a number above 0")
    return value


def _checked_betas(values: ArrayLike) -> Float64Array:
    given = np.asarray(values)
    if given.dtype.kind not in "fiu":
        raise ScheduleError(f"betas have dtype {given.dtype}, expected real numbers")
    if given.ndim != 1 or given.size == 0:
        raise ScheduleError(f"betas have shape {given.shape}, expected (T,) with T >= 1")
    if given.size > MAX_TIMESTEPS:
        raise ScheduleError(f"there are {given.size} betas, expected at most {MAX_TIMESTEPS}")
    betas = given.astype(np.float64)  # always a copy
    inside = (betas > 0) & (betas < 1)
    inside[-1] |= betas[-1] == 1  # zero terminal SNR
    if not inside.all():
        index = int(np.argmin(inside))
        raise ScheduleError(
            f"betas[{index}] is {float(betas[index])}, expected a number in (0, 1), or exactly 1 at the last timestep"
        )
    return _read_only(betas)


def _read_only(array: Float64Array) -> Float64Array:
    array.flags.writeable = False
    return array
