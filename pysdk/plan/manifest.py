"""The manifest of a plan: what the network is, how its output is read, which engines are in the file.

Every structure is frozen, every size is bounded, unknown fields are refused: a manifest is untrusted input.
"""

import json
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from pysdk import _native
from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.schedule import Schedule
from pysdk.errors import OptionError, PlanError
from pysdk.machine.float_state import standard_floats

FORMAT_VERSION = 1
READABLE_VERSIONS = (1,)
MAX_MANIFEST_BYTES = 4 << 20
MAX_MEMBERS = 64
"""Files in one plan, manifest.json included."""
MANIFEST_NAME = "manifest.json"
NETWORK_NAME = "network.onnx"
NETWORK_DATA_NAME = "network.data"
"""The weights of a network that is too large for one ONNX file."""
CLASSIFIER_NAME = "classifier.onnx"
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,99}\Z"

Word = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._+-]{0,63}\Z")]
MemberName = Annotated[str, Meta(pattern=NAME_PATTERN)]
# Plans come from strangers and these are printed: no control characters, so no terminal escapes.
Line = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
Text = Annotated[str, Meta(max_length=20_000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*\Z")]
Size = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Batch = Annotated[int, Meta(ge=1, le=65_536)]
Bounded = Annotated[float, Meta(ge=-1e9, le=1e9)]
Respacing = Annotated[str, Meta(max_length=200, pattern=r"^(ddim[0-9]{1,7}|[0-9]{1,7}(,[0-9]{1,7})*)\Z")]
Option = bool | Annotated[int, Meta(ge=-(2**53), le=2**53)] | Bounded | Line


class ModelInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The network: (batch, *shape) float32 and one timestep in, (batch, out_channels, H, W) out."""

    name: Line
    shape: tuple[
        Annotated[int, Meta(ge=1, le=4096)],
        Annotated[int, Meta(ge=1, le=16384)],
        Annotated[int, Meta(ge=1, le=16384)],
    ]
    """C, H, W of one image."""
    out_channels: Annotated[int, Meta(ge=1, le=8192)]
    """C, or 2C exactly when `variance_type` is learned_range."""
    prediction_type: Literal["epsilon", "sample", "v_prediction", "edm"] = "epsilon"
    """"edm" is F of EDM's preconditioning; it and "sample" can be read from a network of sigma."""
    whole_timesteps: bool = False
    """The network takes its timestep as an integer: there are no levels between two timesteps."""
    variance_type: Literal["fixed_small", "fixed_large", "learned_range"] = "fixed_small"
    """The reverse variance the network was trained for."""
    value_range: tuple[Bounded, Bounded] = (-1.0, 1.0)
    """Lowest and highest value of the training images."""
    num_classes: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    null_label: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """The label that means "no class", in 0..num_classes; None if the network cannot be guided."""
    class_names: Annotated[tuple[Line, ...], Meta(max_length=10_000)] | None = None
    parameters: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    """Number of weights."""
    description: Text = ""
    license: Text = ""


Positive = Annotated[float, Meta(gt=0.0, le=1e9)]


class EdmInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See `pysdk.diffusion.edm.EdmSchedule`."""

    sigma_min: Positive
    sigma_max: Positive
    rho: Positive = 7.0
    sigma_data: Positive | None = None


class ScheduleInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The forward process. JSON numbers are the shortest that read back as the same float64."""

    name: Word
    betas: (
        Annotated[tuple[Annotated[float, Meta(gt=0.0, le=1.0)], ...], Meta(min_length=1, max_length=100_000)] | None
    ) = None
    """In (0, 1); the last may be exactly 1 (zero terminal SNR). None for a network of sigma."""
    edm: EdmInfo | None = None
    """The levels of a network of sigma; None for one of timesteps."""

    def make(self) -> Schedule | EdmSchedule:
        """The schedule as an object. ScheduleError if the values are none."""
        if self.edm is not None:
            return EdmSchedule(self.edm.sigma_min, self.edm.sigma_max, self.edm.rho, self.edm.sigma_data)
        return Schedule.from_betas(self.betas or ())

    @property
    def timesteps(self) -> int:
        """T; 0 for a network of sigma."""
        return len(self.betas or ())

    def summary(self) -> str:
        """One line for people."""
        if self.edm is not None:
            return f"{self.name}, sigma {self.edm.sigma_max:g} to {self.edm.sigma_min:g}"
        return f"{self.name}, {self.timesteps} timesteps"


class ClipInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to the raw estimate: nothing, clamp to [-limit, limit], or dynamic threshold."""

    kind: Literal["none", "clamp", "dynamic"] = "clamp"
    limit: Annotated[float, Meta(gt=0.0, le=1e9)] = 1.0
    ratio: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.995
    max_threshold: Annotated[float, Meta(ge=1.0, le=1e9)] | None = None
    """None: no limit."""


class DefaultsInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `sample()` does unless told; None leaves the choice to the solver."""

    solver: Word = "ddpm"
    steps: Annotated[int, Meta(ge=1, le=1_000_000)] | Respacing | None = None
    """A number of timesteps, or a respacing rule such as "ddim50" or "10,10,5"."""
    guidance_scale: Bounded | None = None
    options: Annotated[dict[Word, Option], Meta(max_length=64)] = {}
    """Keyword arguments of the solver."""
    clip: ClipInfo = ClipInfo()


class EngineInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One compiled form of the network, best first in `Manifest.engines`."""

    kind: Word
    """Name of the engine in pysdk's registry."""
    member: MemberName
    """Its file in the plan."""
    data: Annotated[tuple[MemberName, ...], Meta(max_length=MAX_MEMBERS - 1)] = ()
    """Other files of the plan that it reads, e.g. its weights."""
    precision: Word
    batch_size: Batch
    """Images in one call of the network; a guided chain runs pairs, so half as many."""
    batches: tuple[Batch, Batch] | None = None
    """Smallest and largest number of images that one call takes; None for any."""
    batch_invariant: bool = False
    """Whether an image had the same bits in all smaller batches and with all numbers of threads tried when it was
    built. If not, every call runs at `batch_size` and the last one is padded."""
    names: Annotated[dict[Word, Line], Meta(max_length=4)] = {}
    """The engine's names of inputs and output, where they differ from those in `network.onnx`."""
    requires: Annotated[dict[Word, Line], Meta(max_length=64)] = {}
    """What the machine must have, e.g. {"compute_capability": "9.0"}."""
    seconds_per_step: Annotated[float, Meta(gt=0.0, le=1e6)] | None = None
    """Measured on the machine that built it."""
    max_abs_error: Annotated[float, Meta(ge=0.0, le=1e9)] | None = None
    """Largest difference from the float32 network, measured when it was built."""
    tuned: bool | None = None
    """Whether tactics and engines were timed on the machine that built it; None in plans that do not say."""
    notes: Text = ""


class ClassifierInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A classifier of noisy images as the gradient of its log-probability, an ONNX file for ONNX Runtime.

    (batch, *shape) float32, one timestep and labels in; d log p(label | x, t) / dx, (batch, *shape) float32, out.
    """

    name: Line
    member: MemberName = CLASSIFIER_NAME
    num_classes: Annotated[int, Meta(ge=1, le=1_000_000)]
    """The model's, if it has classes: both read the same labels."""
    batch_invariant: bool = False
    """As for an engine."""
    max_abs_error: Annotated[float, Meta(ge=0.0, le=1e9)] | None = None
    """Largest difference from torch's own gradient, measured when it was built."""


class MemberInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size in bytes and SHA-256 (lower-case hex) of one file of the plan."""

    size: Size
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a plan says about itself."""

    format_version: Annotated[int, Meta(ge=0, le=2**31)] = FORMAT_VERSION
    numerics_version: Annotated[int, Meta(ge=1, le=2**31)] = 1
    """The native arithmetic it was built and checked with; plans that do not say have version 1."""
    pysdk_version: Line
    created_by: Line = "pysdk"
    model: ModelInfo
    schedule: ScheduleInfo
    defaults: DefaultsInfo = DefaultsInfo()
    engines: Annotated[tuple[EngineInfo, ...], Meta(max_length=256)] = ()
    classifier: ClassifierInfo | None = None
    """For classifier guidance."""
    members: Annotated[dict[MemberName, MemberInfo], Meta(max_length=MAX_MEMBERS - 1)] = {}
    """Filled in by `write_plan`."""


class _Version(Struct):
    format_version: int


@standard_floats
def parse_manifest(data: bytes | memoryview) -> Manifest:
    """Manifest from the bytes of manifest.json. PlanError, a clause without the file's name, if it is not one."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise PlanError(f"has a manifest of {len(data)} bytes, more than the {MAX_MANIFEST_BYTES} allowed")
    try:
        text = bytes(data).decode()  # msgspec checks the UTF-8 of names and values only in part
        version = msgspec.json.decode(text, type=_Version).format_version
        if version not in READABLE_VERSIONS:
            readable = " and ".join(map(str, READABLE_VERSIONS))
            raise PlanError(f"has format version {version}, this pysdk reads version {readable}")
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.ValidationError as error:
        shown = "".join(c if c.isprintable() else "?" for c in str(error)[:300])  # it may quote the file
        reason, _, field = shown.partition(" - at `$.")
        place = f" field {field.rstrip('`')}" if field else ""
        raise PlanError(f"has a manifest that is not valid:{place} {reason}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PlanError(f"has a manifest that is not JSON: {error}") from None
    _check_relations(manifest)
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """manifest.json of `manifest`, the same bytes for the same values. OptionError if no reader would accept it."""
    try:
        plain = msgspec.to_builtins(manifest, order="deterministic", enc_hook=_plain_numpy)
        data = json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        parse_manifest(data)
    except (TypeError, ValueError) as error:  # PlanError is a ValueError
        raise OptionError(f"this plan cannot be written, it {_clause(error)}") from error
    return data


def _plain_numpy(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"values of type {type(value).__name__} are not allowed")


def _clause(error: Exception) -> str:
    return str(error) if isinstance(error, PlanError) else f"has a manifest that cannot be encoded: {error}"


def _check_relations(manifest: Manifest) -> None:
    """Checks what must hold between fields, beyond the type of each."""
    model, members, classifier = manifest.model, manifest.members, manifest.classifier
    expected = model.shape[0] * (2 if model.variance_type == "learned_range" else 1)
    labels, (lowest, highest) = model.num_classes, model.value_range
    betas, edm = manifest.schedule.betas, manifest.schedule.edm
    certain = [index for index, beta in enumerate((betas or ())[:-1]) if beta == 1.0]
    rules = [
        ((betas is None) != (edm is None), "schedule has betas and edm, or neither; expected one of them"),
        (edm is None or edm.sigma_min < edm.sigma_max, "schedule.edm.sigma_min is not below sigma_max"),
        (
            model.prediction_type in (("edm", "sample") if edm else ("epsilon", "sample", "v_prediction")),
            f"model.prediction_type is {model.prediction_type}, which a network of "
            f"{'sigma' if edm else 'timesteps'} does not have",
        ),
        (
            model.prediction_type != "edm" or edm is None or edm.sigma_data is not None,
            "schedule.edm.sigma_data is missing, which prediction_type edm needs",
        ),
        (
            edm is None or (model.variance_type == "fixed_small" and not model.whole_timesteps),
            "a network of sigma has no learned or fixed_large variance and no whole timesteps",
        ),
        (not certain, f"schedule.betas has 1.0 at {certain[:3]}, only its last value may be 1"),
        (
            model.out_channels == expected,
            f"model.out_channels is {model.out_channels}, expected {expected} "
            f"for {model.shape[0]} channels and variance_type {model.variance_type}",
        ),
        (lowest < highest, f"model.value_range is [{lowest}, {highest}], expected the lower value first"),
        (
            model.null_label is None or (labels is not None and model.null_label <= labels),
            f"model.null_label is {model.null_label}, expected at most num_classes, which is {labels}",
        ),
        (
            model.class_names is None or len(model.class_names) == labels,
            f"model.class_names has {len(model.class_names or ())} names, expected num_classes, which is {labels}",
        ),
        (NETWORK_NAME in members or manifest.engines, f"members has no {NETWORK_NAME}, and there is no engine either"),
        (
            classifier is None or classifier.member in members,
            f"classifier.member is {classifier and classifier.member!r}, expected one of {sorted(members)}",
        ),
        (
            classifier is None or labels in (None, classifier.num_classes),
            f"classifier.num_classes is {classifier and classifier.num_classes}, expected the model's, {labels}",
        ),
        (MANIFEST_NAME not in members, f"members lists {MANIFEST_NAME}, which cannot list itself"),
    ]
    for index, engine in enumerate(manifest.engines):
        size, (low, high) = engine.batch_size, engine.batches or (1, engine.batch_size)
        rules.append((low <= size <= high, f"engines[{index}].batch_size is {size}, its batches are {low} to {high}"))
        rules += [
            (name in members, f"engines[{index}].{field} is {name!r}, expected one of {sorted(members)}")
            for field, name in [("member", engine.member), *(("data", name) for name in engine.data)]
        ]
    if manifest.numerics_version > _native.NUMERICS_VERSION:
        raise PlanError(
            f"has numerics version {manifest.numerics_version}, this pysdk computes version {_native.NUMERICS_VERSION} "
            "and would draw other bits; update pysdk"
        )
    for holds, reason in rules:
        if not holds:
            raise PlanError(f"has a manifest that is not valid: {reason}")
