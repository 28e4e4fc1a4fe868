"""The command-line flags of improved-diffusion and guided-diffusion: names, defaults and parsing.

A checkpoint of theirs is weights alone. What else its network is stands in the flags of the command that trained it, so
they are taken as they are written there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pysdk.diffusion.schedule import MAX_TIMESTEPS
from pysdk.diffusion.timesteps import make_timesteps
from pysdk.errors import OptionError
from pysdk.training.unet import MAX_BLOCKS

REPOSITORIES = ("improved-diffusion", "guided-diffusion")
_IMPROVED_ONLY = frozenset({"sigma_small"})
_GUIDED_ONLY = frozenset(
    {"channel_mult", "num_head_channels", "resblock_updown", "use_fp16", "use_new_attention_order"}
)
_LEVELS: dict[str, dict[int, tuple[float, ...]]] = {
    "improved-diffusion": {256: (1, 1, 2, 2, 4, 4), 64: (1, 2, 3, 4), 32: (1, 2, 2, 2)},
    "guided-diffusion": {
        512: (0.5, 1, 1, 2, 2, 4, 4),
        256: (1, 1, 2, 2, 4, 4),
        128: (1, 1, 2, 3, 4),
        64: (1, 2, 3, 4),
    },
}
"""channel_mult of each image size, where the flag is not given."""

_TRAINING = (
    *("data_dir", "lr", "weight_decay", "lr_anneal_steps", "microbatch", "ema_rate", "log_interval", "save_interval"),
    *("resume_checkpoint", "fp16_scale_growth", "schedule_sampler"),
)
_ELSEWHERE = {
    "num_samples": "say -n to `pysdk sample`",
    "batch_size": "the batch of the engine is --batch-size",
    "model_path": "the checkpoint is the SOURCE",
    "classifier_path": "classifier guidance is not built into plans yet",
    "classifier_scale": "classifier guidance is not built into plans yet",
    "large_size": "super-resolution networks take a second image and cannot be built",
    "small_size": "super-resolution networks take a second image and cannot be built",
    **dict.fromkeys(_TRAINING, "it is a flag of training and changes nothing here; leave it out"),
}


_MOST = {"image_size": 16384, "num_channels": 16384, "num_res_blocks": MAX_BLOCKS, "diffusion_steps": MAX_TIMESTEPS}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Flags of the two repositories' scripts, parsed; those of one repository alone have no effect in the other.

    dropout, use_checkpoint, use_kl and rescale_learned_sigmas concern training only; use_fp16 computed in half
    precision what is float32 here.
    """

    image_size: int = 64
    num_channels: int = 128
    num_res_blocks: int = 2
    num_heads: int = 4
    num_heads_upsample: int = -1
    num_head_channels: int = -1
    attention_resolutions: str = "16,8"
    channel_mult: str = ""
    dropout: float = 0.0
    class_cond: bool = False
    use_checkpoint: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_fp16: bool = False
    use_new_attention_order: bool = False
    learn_sigma: bool = False
    sigma_small: bool = False
    diffusion_steps: int = 1000
    noise_schedule: str = "linear"
    timestep_respacing: str = ""
    use_kl: bool = False
    predict_xstart: bool = False
    rescale_timesteps: bool = False
    rescale_learned_sigmas: bool = False
    clip_denoised: bool = True
    use_ddim: bool = False
    repository: str = "guided-diffusion"

    @property
    def levels(self) -> tuple[float, ...]:
        """channel_mult, given or implied by the image size."""
        if self.channel_mult:
            return _integers("channel_mult", self.channel_mult)
        known = _LEVELS[self.repository]
        if self.image_size not in known:
            raise OptionError(
                f"--image_size is {self.image_size}, for which {self.repository} has no channel_mult (only for "
                f"{sorted(known)}); give --channel_mult (guided-diffusion's flag)"
            )
        return known[self.image_size]

    @property
    def attention_levels(self) -> tuple[int, ...]:
        """Levels whose downsampling 2^level is image_size // r for an r of attention_resolutions."""
        factors = {self.image_size // r for r in _integers("attention_resolutions", self.attention_resolutions)}
        return tuple(level for level in range(len(self.levels)) if 2**level in factors)

    @property
    def time_scale(self) -> float:
        """What the network's timesteps are multiplied with."""
        return 1000.0 / self.diffusion_steps if self.rescale_timesteps else 1.0


def parse_flags(options: Mapping[str, str]) -> Flags:
    """The flags of a command line, `--repository` among them where it matters.

    Raises:
        OptionError: an unknown flag, a value that upstream would not parse, flags of both repositories together, or
            a default in which the repositories differ and nothing says which it is.
    """
    kinds = {field.name: type(field.default) for field in fields(Flags)}
    for name in options:
        if name not in kinds:
            why = _ELSEWHERE.get(name, f"neither {' nor '.join(REPOSITORIES)} has such a flag")
            raise OptionError(f"--{name} cannot be used: {why}")
    values = {name: _parse(name, text, kinds[name]) for name, text in options.items()}
    values["repository"] = repository = _repository(values)
    values.setdefault("rescale_timesteps", repository == "improved-diffusion")
    flags = Flags(**values)
    _check(flags)
    return flags


def _repository(values: Mapping[str, Any]) -> str:
    """Which repository's flags these are."""
    improved, guided = sorted(_IMPROVED_ONLY & values.keys()), sorted(_GUIDED_ONLY & values.keys())
    given = values.get("repository")
    if given is not None and given not in REPOSITORIES:
        raise OptionError(f"--repository is {given!r}, expected {' or '.join(REPOSITORIES)}")
    foreign = guided if given == "improved-diffusion" else improved if given == "guided-diffusion" else []
    if foreign:
        raise OptionError(f"--{foreign[0]} is not a flag of {given}, which --repository names")
    if improved and guided:
        raise OptionError(f"--{improved[0]} is a flag of improved-diffusion, --{guided[0]} of guided-diffusion")
    if given is not None:
        return str(given)
    size = values.get("image_size", Flags.image_size)
    if improved or (size == 32 and not guided):
        return "improved-diffusion"
    if guided or size in (128, 512):
        return "guided-diffusion"
    if values.get("diffusion_steps", 1000) != 1000 and "rescale_timesteps" not in values:
        raise OptionError(
            "--rescale_timesteps is not given, and by default it is True in improved-diffusion and False in "
            f"guided-diffusion; say --repository {' or '.join(REPOSITORIES)}"
        )
    return "guided-diffusion"  # where the defaults agree, either will do


def _check(flags: Flags) -> None:
    """OptionError for values that parse and cannot be."""
    for name in ("image_size", "num_channels", "num_res_blocks", "num_heads", "diffusion_steps"):
        if getattr(flags, name) < 1:
            raise OptionError(f"--{name} is {getattr(flags, name)}, expected at least 1")
    for name, most in _MOST.items():
        if getattr(flags, name) > most:
            raise OptionError(f"--{name} is {getattr(flags, name)}, expected at most {most}")
    for name in ("num_heads_upsample", "num_head_channels"):
        if getattr(flags, name) != -1 and getattr(flags, name) < 1:
            raise OptionError(f"--{name} is {getattr(flags, name)}, expected at least 1, or -1 for the default")
    if flags.noise_schedule not in ("linear", "cosine"):
        raise OptionError(f"--noise_schedule is {flags.noise_schedule!r}, expected linear or cosine")
    _ = flags.attention_levels
    if flags.timestep_respacing:
        try:
            make_timesteps(flags.diffusion_steps, flags.timestep_respacing)
        except OptionError as error:
            raise OptionError(f"--timestep_respacing: {error}") from None


def _parse(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        word = text.lower()
        if word not in ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0"):
            raise OptionError(f"--{name} is {text!r}, expected True or False")
        return word in ("yes", "true", "t", "y", "1")
    try:
        return kind(text)
    except ValueError:
        raise OptionError(f"--{name} is {text!r}, expected {'a number' if kind is float else 'an integer'}") from None


def _integers(name: str, text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise OptionError(f"--{name} is {text!r}, expected numbers such as 16,8")
    return values
