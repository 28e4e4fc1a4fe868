"""Solvers: pure functions (schedule, timesteps, options) -> StepTable, and their registry.

With abar_t at the current timestep, abar_s at the next one visited (1 after the last), S = sqrt(abar) and
N = sqrt(1 - abar), a row reads the network's output f as an estimate of the data, clips it and steps (columns in
`docs/architecture.md`, derivations in `docs/solvers.md`):

    r = p x + q f        D = clip(r)        x' = a x + b D + h r + s z

References:
    DDPM: Ho et al., Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239
    iDDPM: Nichol & Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, https://arxiv.org/abs/2102.09672
    DDIM: Song et al., Denoising Diffusion Implicit Models, 2020, https://arxiv.org/abs/2010.02502
    v-prediction: Salimans & Ho, Progressive Distillation, 2022, https://arxiv.org/abs/2202.00512
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from pysdk.errors import OptionError, OptionTypeError
from pysdk.schedule import Float64Array, Schedule
from pysdk.table import Clip, StepTable
from pysdk.timesteps import Int64Array, Steps, make_timesteps

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")

VARIANCES = {
    "small": "small",
    "large": "large",
    "learned": "learned",
    "fixed_small": "small",
    "fixed_large": "large",
    "learned_range": "learned",
}
"""The names of DDPM's variances, ours and diffusers', to ours."""

DEFAULT_CLIP = Clip.clamp(1.0)
"""For data in [-1, 1]."""

PREV_TIMESTEPS = ("next", "stride")
"""Which timestep a row of `ddim` steps to."""

_SMALLEST_VARIANCE = 1e-20
"""diffusers' stand-in for a beta_tilde of 0."""

SOLVERS: dict[str, Callable[..., StepTable]] = {}
"""Every solver by name; `solver` adds to it."""

_Function = TypeVar("_Function", bound=Callable[..., StepTable])


def solver(function: _Function) -> _Function:
    """Register `function(schedule, timesteps, *, prediction_type, **options) -> StepTable` under its own name.

    Its keyword-only parameters after `prediction_type` are the solver's options; all need defaults.
    """
    SOLVERS[function.__name__] = function
    return function


def make_table(
    solver_name: str,
    schedule: Schedule,
    *,
    steps: Steps = None,
    spacing: str | None = None,
    steps_offset: int = 0,
    prediction_type: str = "epsilon",
    **options: Any,
) -> StepTable:
    """The table of the solver `solver_name`, e.g. `make_table("ddim", Schedule.linear(), steps=50, eta=0.5)`.

    Args:
        solver_name: one of `SOLVERS`.
        schedule: the forward process the network was trained on.
        steps, spacing, steps_offset: which timesteps are visited; see `pysdk.timesteps.make_timesteps`.
        prediction_type: what the network's output is: "epsilon" (the noise), "sample" (x_0) or "v_prediction".
        options: those of the solver; see its docstring.

    Raises:
        OptionError: unknown solver or option, or a value that cannot be used; nothing is adjusted to make it fit.
        OptionTypeError: an argument of the wrong type.
    """
    if solver_name not in SOLVERS:
        raise OptionError(f"solver is {solver_name!r}, expected one of {sorted(SOLVERS)}")
    function = SOLVERS[solver_name]
    known = solver_options(solver_name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise OptionError(f"solver {solver_name!r} has no option {unknown[0]!r}; it has {sorted(known)}")
    timesteps = make_timesteps(len(schedule), steps, spacing=spacing, steps_offset=steps_offset)
    return function(schedule, timesteps, prediction_type=prediction_type, **options)


def solver_options(solver_name: str) -> dict[str, Any]:
    """The options of a solver and their defaults."""
    parameters = inspect.signature(SOLVERS[solver_name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "prediction_type"}


def read_output(prediction_type: str, alphas_cumprod: Float64Array) -> tuple[Float64Array, Float64Array]:
    """(p, q) with x_0 = p x + q f for a network output f; all float64 (K,).

    epsilon:       x_0 = (x - N f) / S      (DDPM, eq. 15)
    sample:        x_0 = f
    v_prediction:  x_0 = S x - N f          (Salimans & Ho, appendix D)

    Raises:
        OptionError: another prediction type, or epsilon where abar is 0 and x holds no trace of x_0.
    """
    signal, noise = np.sqrt(alphas_cumprod), np.sqrt(1 - alphas_cumprod)
    if prediction_type == "epsilon":
        if np.any(signal == 0):
            raise OptionError(
                "prediction_type is 'epsilon', but alphas_cumprod is 0 at a timestep visited (zero terminal SNR): "
                "noise tells nothing of x_0 there; use a network of 'v_prediction' or 'sample', or skip the timestep"
            )
        return 1 / signal, -noise / signal
    if prediction_type == "sample":
        return np.zeros_like(signal), np.ones_like(signal)
    if prediction_type == "v_prediction":
        return signal, -noise
    raise OptionError(f"prediction_type is {prediction_type!r}, expected one of {list(PREDICTION_TYPES)}")


@solver
def ddpm(
    schedule: Schedule,
    timesteps: Int64Array,
    *,
    prediction_type: str = "epsilon",
    variance: str = "small",
    final_noise: bool = False,
    clip: Clip = DEFAULT_CLIP,
) -> StepTable:
    """Ancestral sampling: x' ~ q(x_s | x_t, x_0 = D) (DDPM, Algorithm 2 in the form of eq. 7).

    A strided chain is the same on the respaced process, beta_t = 1 - abar_t/abar_s (iDDPM, section 4). The last row has
    s = 0, a = 0, b = 1: the chain ends on D.

    Args:
        variance: s^2 is beta_tilde_t ("small"), beta_t ("large"), or read from the second half of the network's
            channels ("learned", iDDPM eq. 15; the caller checks that there is one). diffusers' names "fixed_small",
            "fixed_large" and "learned_range" mean the same.
        final_noise: whether the last row, too, adds s z, unless its timestep is 0, as diffusers' scheduler does: the
            images then keep the noise of that timestep with "large", next to none with "small".
        clip: what is done to the estimate of x_0.
    """
    if variance not in VARIANCES:
        raise OptionError(f"variance is {variance!r}, expected one of {list(VARIANCES)}")
    _check_flags(final_noise=final_noise)
    p, q = read_output(prediction_type, schedule.alphas_cumprod[timesteps])
    process = schedule.respace(timesteps[::-1])  # ascending; rows descend
    from_x0, from_xt = process.posterior_mean_coefficients
    learned = VARIANCES[variance] == "learned"
    if learned:
        s = np.ones(len(process))
    else:
        s = np.sqrt(process.betas if VARIANCES[variance] == "large" else process.posterior_variance)
    log_beta_tilde = process.posterior_log_variance_clipped.copy()
    if not final_noise or timesteps[-1] == 0:
        s[0] = 0.0  # the last row
    else:
        log_beta_tilde[0] = np.log(_SMALLEST_VARIANCE)
    return StepTable.from_columns(
        t=timesteps,
        p=p,
        q=q,
        a=from_xt[::-1],
        b=from_x0[::-1],
        s=s[::-1],
        log_beta=np.log(process.betas)[::-1] if learned else 0.0,
        log_beta_tilde=log_beta_tilde[::-1] if learned else 0.0,
        clip=_checked_clip(clip),
        learned_variance=learned,
    )


@solver
def ddim(
    schedule: Schedule,
    timesteps: Int64Array,
    *,
    prediction_type: str = "epsilon",
    eta: float = 0.0,
    use_clipped_model_output: bool = False,
    set_alpha_to_one: bool = True,
    prev_timestep: str = "next",
    clip: Clip = DEFAULT_CLIP,
) -> StepTable:
    """x' = S_s D + sqrt(N_s^2 - rho^2) eps + rho z, eps = (x - S_t x_0)/N_t (DDIM, eq. 12).

    rho = eta N_s/N_t sqrt(1 - abar_t/abar_s) (DDIM, eq. 16): eta 0 is deterministic, eta 1 is `ddpm(variance="small")`.

    Args:
        eta: in [0, 1].
        use_clipped_model_output: eps from the clipped estimate D, so that x, D and eps agree, instead of from r.
        set_alpha_to_one: abar_s of the last row is 1 and the chain ends on D; if False it is abar at timestep 0, the
            chain ends with that little noise left.
        prev_timestep: the timestep s that a row steps to: the "next" one visited, or, as in diffusers, the one a
            "stride" of T // K below t, which another spacing than "leading" may not visit; after the last if negative.
        clip: what is done to the estimate of x_0.
    """
    if isinstance(eta, bool) or not isinstance(eta, (int, float, np.integer, np.floating)):
        raise OptionTypeError(f"eta is {eta!r}, expected a number from 0 to 1")
    if not 0 <= eta <= 1:
        raise OptionError(f"eta is {eta!r}, expected a number from 0 (deterministic) to 1 (DDPM's small variance)")
    _check_flags(use_clipped_model_output=use_clipped_model_output, set_alpha_to_one=set_alpha_to_one)
    if prev_timestep not in PREV_TIMESTEPS:
        raise OptionError(f"prev_timestep is {prev_timestep!r}, expected one of {list(PREV_TIMESTEPS)}")
    following = np.append(timesteps[1:], -1)
    if prev_timestep == "stride":
        following = timesteps - len(schedule) // len(timesteps)
    abar_t = schedule.alphas_cumprod[timesteps]
    final = 1.0 if set_alpha_to_one else schedule.alphas_cumprod[0]
    abar_s = np.where(following >= 0, schedule.alphas_cumprod[following], final)
    p, q = read_output(prediction_type, abar_t)
    share = (1 - abar_t / abar_s) / (1 - abar_t)  # of N_s^2, renewed by fresh noise at eta 1; rounding keeps it <= 1
    rho = eta * np.sqrt((1 - abar_s) * share)
    direction = np.sqrt((1 - abar_s) * (1 - eta**2 * share))  # N_s^2 - rho^2, never negative
    from_xt = direction / np.sqrt(1 - abar_t)
    from_x0 = -from_xt * np.sqrt(abar_t)
    clean = np.sqrt(abar_s)
    b, h = (clean + from_x0, 0.0) if use_clipped_model_output else (clean, from_x0)
    return StepTable.from_columns(t=timesteps, p=p, q=q, a=from_xt, b=b, h=h, s=rho, clip=_checked_clip(clip))


def _check_flags(**flags: bool) -> None:
    for name, flag in flags.items():
        if not isinstance(flag, (bool, np.bool_)):
            raise OptionTypeError(f"{name} is {flag!r}, expected True or False")


def _checked_clip(clip: Clip) -> Clip:
    if not isinstance(clip, Clip):
        raise OptionTypeError(f"clip is {clip!r}, expected Clip.none(), Clip.clamp() or Clip.dynamic()")
    return clip
