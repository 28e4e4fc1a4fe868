"""Every error of the SDK: each is a `PysdkError` and also the builtin a caller would expect."""


class PysdkError(Exception):
    """Base of every error raised on purpose by pysdk."""


class OptionError(PysdkError, ValueError):
    """An argument has a value that cannot be used; the message names it, what was expected and what to do."""


class OptionTypeError(PysdkError, TypeError):
    """An argument has the wrong type or dtype."""


class ScheduleError(PysdkError, ValueError):
    """A noise schedule or step table is not valid: wrong shape, out of range, NaN."""


class PlanError(PysdkError, ValueError):
    """A plan file is damaged, edited, of another format version or not a plan at all."""


class PlanNotFoundError(PlanError, FileNotFoundError):
    """There is no plan file at the path given."""


class EngineError(PysdkError, RuntimeError):
    """An engine cannot be loaded on this machine or failed while running."""


class DeviceError(EngineError):
    """A device is missing, has no room, or failed; the message says which, and what to do."""


class MemoryLimitError(PysdkError, MemoryError):
    """Something needs more memory than it may take; the message holds both numbers and says what to change."""


class DeadlineError(PysdkError, TimeoutError):
    """A call took longer than its `deadline`; the message says how far it was."""


class NumericalError(PysdkError, ArithmeticError):
    """A chain produced NaN or infinity."""


class OutputError(PysdkError, OSError):
    """A result could not be written; nothing half-written was left behind."""


class MissingDependencyError(PysdkError, ImportError):
    """An optional package is needed for this; the message holds the command that installs it."""


class DataError(PysdkError, ValueError):
    """A data set is missing, damaged or has the wrong shape."""


class CheckpointError(PysdkError, ValueError):
    """A training checkpoint is missing, damaged or belongs to another network."""


class ExportError(PysdkError, RuntimeError):
    """A step of lowering a network to an engine failed; the message names the step."""
