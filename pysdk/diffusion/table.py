"""The step table: what a solver makes and the native chain runs. Equations in `docs/architecture.md`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pysdk import _native
from pysdk.errors import OptionError, OptionTypeError, ScheduleError
from pysdk.machine.float_state import standard_floats
from pysdk.noise import MAX_ROWS

STEP_COLUMNS: tuple[str, ...] = tuple(_native.STEP_COLUMNS)
_INDEX = {name: index for index, name in enumerate(STEP_COLUMNS)}
_DEFAULTS = {"c_in": 1.0}
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_FLOAT32_TINY = float(np.finfo(np.float32).tiny)

ClipKind = Literal["none", "clamp", "dynamic"]


@dataclass(frozen=True)
class Clip:
    """What happens to the raw estimate r in every row; made by `none`, `clamp` or `dynamic`."""

    kind: ClipKind = "none"
    limit: float = 1.0
    ratio: float = 0.995
    max_threshold: float = math.inf

    def __post_init__(self) -> None:
        if self.kind not in ("none", "clamp", "dynamic"):
            raise OptionError(f"clip kind is {self.kind!r}; use 'none', 'clamp' or 'dynamic'")
        if not _FLOAT32_TINY <= self.limit <= _FLOAT32_MAX:
            raise OptionError(f"clip limit is {self.limit}; it must be above 0 and finite as float32")
        if not 0.0 < self.ratio <= 1.0:
            raise OptionError(f"clip ratio is {self.ratio}; it is a quantile and must lie in (0, 1]")
        if not self.max_threshold >= 1.0:
            raise OptionError(f"clip max_threshold is {self.max_threshold}; it must be at least 1")

    @classmethod
    def none(cls) -> Clip:
        """D = r."""
        return cls()

    @classmethod
    def clamp(cls, limit: float = 1.0) -> Clip:
        """D = clamp(r, -limit, limit)."""
        return cls("clamp", limit=float(limit))

    @classmethod
    def dynamic(cls, ratio: float = 0.995, max_threshold: float = math.inf) -> Clip:
        """D = clamp(r, -thr, thr) / thr, thr = min(max(quantile(|r|, ratio), 1), max_threshold) per image."""
        return cls("dynamic", ratio=float(ratio), max_threshold=float(max_threshold))


def checked_clip(clip: Clip) -> Clip:
    """OptionTypeError unless `clip` is a `Clip`."""
    if not isinstance(clip, Clip):
        raise OptionTypeError(f"clip is {clip!r}, expected Clip.none(), Clip.clamp() or Clip.dynamic()")
    return clip


@dataclass(frozen=True, eq=False)
class StepTable:
    """K rows of coefficients and what all rows share; checked when made, read-only afterwards.

    Attributes:
        rows: float64 (K, len(STEP_COLUMNS)), columns in the order of `STEP_COLUMNS`.
        timesteps: float64 (K,), the schedule's timestep of each row; the column `t` unless given.
        clip: how the raw estimate is clipped.
        learned_variance: the network's second half of channels interpolates the log variance.
        init_scale: the chain starts from x = init_scale * z_0.
        native: the table as chains take it, made and checked once.
    """

    rows: NDArray[np.float64]
    timesteps: NDArray[np.float64] = field(default=None)  # type: ignore[arg-type]  # set to the column t below
    clip: Clip = field(default_factory=Clip)
    learned_variance: bool = False
    init_scale: float = 1.0
    native: _native.StepTable = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = _float64("rows", self.rows)
        object.__setattr__(self, "rows", rows)
        if self.timesteps is None and rows.ndim == 2 and rows.shape[1] == len(STEP_COLUMNS):
            object.__setattr__(self, "timesteps", rows[:, _INDEX["t"]])
        else:
            object.__setattr__(self, "timesteps", _float64("timesteps", self.timesteps))
        self._check_shapes()
        number = isinstance(self.init_scale, (int, float, np.integer, np.floating))
        if not (number and abs(self.init_scale) <= _FLOAT32_MAX):
            raise OptionError(f"init_scale is {self.init_scale!r}; it must be a number that is finite as float32")
        object.__setattr__(self, "init_scale", float(self.init_scale))  # maybe a numpy scalar
        if not isinstance(self.clip, Clip):
            raise OptionError(f"clip is {self.clip!r}; use Clip.none(), Clip.clamp() or Clip.dynamic()")
        object.__setattr__(self, "native", self._make_native())

    @classmethod
    def from_columns(
        cls,
        *,
        timesteps: ArrayLike | None = None,
        clip: Clip | None = None,
        learned_variance: bool = False,
        init_scale: float = 1.0,
        **columns: ArrayLike,
    ) -> StepTable:
        """Make a table from columns by name: `t` of shape (K,), the others (K,) or one number for all rows.

        A column that is not given is 0, except `c_in`, which is 1.
        """
        unknown = sorted(set(columns) - set(STEP_COLUMNS))
        if unknown:
            raise OptionError(f"there is no column {unknown[0]!r}; the columns are {', '.join(STEP_COLUMNS)}")
        if "t" not in columns:
            raise OptionError("the column t is missing; give one timestep per row, shape (K,)")
        t = _float64("t", columns["t"])
        if t.ndim != 1:
            raise ScheduleError(f"column t has shape {t.shape}; one timestep per row, shape (K,), is needed")
        _check_count(len(t))  # before memory is taken for it
        rows = np.zeros((len(t), len(STEP_COLUMNS)))
        for index, name in enumerate(STEP_COLUMNS):
            column = _float64(name, columns.get(name, _DEFAULTS.get(name, 0.0)))
            if column.shape not in ((), t.shape):
                raise ScheduleError(f"column {name} has shape {column.shape}; {t.shape} or one number is needed")
            rows[:, index] = column
        return cls(
            rows=rows,
            timesteps=t if timesteps is None else _float64("timesteps", timesteps),
            clip=Clip.none() if clip is None else clip,
            learned_variance=learned_variance,
            init_scale=init_scale,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made anew: checked and read-only as well."""
        return StepTable, (self.rows, self.timesteps, self.clip, self.learned_variance, self.init_scale)

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> NDArray[np.float64]:
        """Return one column, float64 (K,), read-only."""
        if name not in _INDEX:
            raise OptionError(f"there is no column {name!r}; the columns are {', '.join(STEP_COLUMNS)}")
        return self.rows[:, _INDEX[name]]

    @standard_floats
    def float32(self) -> NDArray[np.float32]:
        """Return the rows as the chain takes them: float32 (K, len(STEP_COLUMNS)), C-contiguous."""
        with np.errstate(over="ignore"):  # the chain refuses infinity
            return np.ascontiguousarray(self.rows, dtype=np.float32)

    def _check_shapes(self) -> None:
        rows, width = self.rows, len(STEP_COLUMNS)
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ScheduleError(f"rows has shape {rows.shape}; (K, {width}) is needed: {', '.join(STEP_COLUMNS)}")
        _check_count(len(rows))
        if self.timesteps.shape != (len(rows),):
            raise ScheduleError(f"timesteps has shape {self.timesteps.shape}; ({len(rows)},) is needed, one per row")
        if not np.isfinite(self.timesteps).all():
            raise ScheduleError("timesteps holds NaN or infinity; every timestep must be finite")

    def _make_native(self) -> _native.StepTable:
        """The same for the chain, which checks every coefficient."""
        single = self.float32()
        lost = np.argwhere(np.isinf(single) & np.isfinite(self.rows))  # its own message would say inf
        if len(lost):
            row, column = lost[0]
            value, name = self.rows[row, column], STEP_COLUMNS[column]
            raise ScheduleError(f"row {row}, column {name} is {value:g}; it must be finite as float32")
        try:
            return _native.StepTable(
                single,
                clip=self.clip.kind,
                clip_limit=self.clip.limit,
                clip_ratio=self.clip.ratio,
                clip_max=self.clip.max_threshold,
                learned_variance=self.learned_variance,
                init_scale=self.init_scale,
            )
        except ValueError as error:
            raise ScheduleError(str(error)) from None


def _check_count(rows: int) -> None:
    if not 0 < rows <= MAX_ROWS:
        raise ScheduleError(f"the table has {rows or 'no'} rows; a chain has 1 to {MAX_ROWS}")


def _float64(name: str, values: Any) -> NDArray[np.float64]:
    """Copy to a read-only float64 array that nobody else can write to."""
    try:
        array = np.array(np.asarray(values, dtype=np.float64), order="C")  # asarray: torch's tensors too
    except (TypeError, ValueError) as error:
        raise ScheduleError(f"{name} is not an array of numbers: {error}") from error
    array.setflags(write=False)
    return array
