"""What a diffusers folder or Hub repository holds: its configs, and where its weights are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pysdk.distribution import install_extra, require
from pysdk.errors import CheckpointError
from pysdk.export.source_file import check_file, check_link
from pysdk.files.regular_file import MAX_JSON, read_file, read_object

INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
"""Best first."""
CONFIG_FILES = [INDEX, CONFIG, SCHEDULER, f"unet/{CONFIG}", f"scheduler/{SCHEDULER}"]
PIPELINES = ("DDPMPipeline", "DDIMPipeline")
INSTALL = install_extra("diffusers")

HUB_ID = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".plan", ".json")


@dataclass(frozen=True)
class Source:
    """One network and, if there is one, its scheduler.

    Attributes:
        name: the folder's name or the Hub id.
        pipeline: the class in model_index.json, None for a network alone.
        config: config.json of the network.
        scheduler: scheduler_config.json, None for a network alone.
        weights: the file with the tensors.
        license: text of the LICENSE file, or "".
    """

    name: str
    pipeline: str | None
    config: dict[str, Any]
    scheduler: dict[str, Any] | None
    weights: Path
    license: str


def is_hub_id(source: str) -> bool:
    """Whether `source` is an owner/name on the Hub; never the name of a file."""
    return HUB_ID.fullmatch(source) is not None and not source.endswith(_FILE_SUFFIXES)


def open_source(source: str, revision: str | None) -> Source:
    """Read the configs of a folder, or of a Hub repository, whose weights are fetched once the configs are accepted.

    Raises:
        CheckpointError: it is no pipeline or network that can be built, a file is missing or damaged, or the Hub does
            not answer.
    """
    local = Path(source).is_dir()
    folder = Path(source) if local else download(source, revision, CONFIG_FILES)
    pipeline = read_index(folder / INDEX) if (folder / INDEX).is_file() else None
    config_path = find(folder, "unet", CONFIG)
    config = read_json(config_path)
    if config.get("_class_name") != "UNet2DModel":
        raise CheckpointError(
            f"{str(config_path)!r} is a {config.get('_class_name')!r}; only networks of class UNet2DModel can be built"
        )
    scheduler_path = find(folder, "scheduler", SCHEDULER)
    scheduler = read_json(scheduler_path) if pipeline or scheduler_path.is_file() else None
    if not local:
        part = config_path.parent.relative_to(folder)
        for name in WEIGHTS:
            folder = download(source, revision, [(part / name).as_posix(), "LICENSE"])
            if (folder / part / name).is_file():
                break
        config_path = folder / part / CONFIG
    licence, weights = folder / "LICENSE", find_weights(config_path.parent)
    for path in (folder / INDEX, config_path, scheduler_path, weights, licence):
        check_link(path, folder)
    return Source(
        name=Path(source).resolve().name if local else source,
        pipeline=pipeline,
        config=config,
        scheduler=scheduler,
        weights=weights,
        license=read_file(licence, MAX_JSON, CheckpointError).decode(errors="replace")[:20_000]
        if licence.is_file()
        else "",
    )


def read_index(path: Path) -> str:
    """The pipeline class in model_index.json.

    Raises:
        CheckpointError: another pipeline than an unconditional one in pixel space, or one with more parts.
    """
    index = read_json(path)
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise CheckpointError(
            f"{str(path)!r} is a {name!r}; only {' and '.join(PIPELINES)} can be built: networks that make pixels from "
            "noise, without a text encoder or an autoencoder"
        )
    for part, value in index.items():
        if not part.startswith("_") and part not in ("unet", "scheduler") and value not in (None, [None, None]):
            raise CheckpointError(f"{str(path)!r} has a part {part!r}, which a {name} has not")
    return str(name)


def find(folder: Path, part: str, name: str) -> Path:
    """folder/part/name, or folder/name where the files of a pipeline lie flat, as in its first releases."""
    return folder / part / name if (folder / part).is_dir() else folder / name


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. CheckpointError if it is missing or holds anything else."""
    check_file(path)
    return read_object(path, CheckpointError)


def find_weights(folder: Path) -> Path:
    """The weights in a folder, safetensors before pickles. CheckpointError if there are none under the plain names."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path.name for path in folder.glob("diffusion_pytorch_model*"))
    hint = f"; it has {', '.join(others)}: save it without `variant` and in one file" if others else ""
    raise CheckpointError(f"{str(folder)!r} has no weights, expected {' or '.join(WEIGHTS)}{hint}")


def download(repository: str, revision: str | None, patterns: list[str]) -> Path:
    """Fetch some files of a Hub repository, or take them from the cache, and return the folder of the snapshot.

    Raises:
        CheckpointError: there is no such repository, or it is not in the cache and the Hub cannot be reached.
        MissingDependencyError: huggingface_hub is not installed.
    """
    require("huggingface_hub", INSTALL)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:  # its client has many kinds, not all of one family
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else "no reason given"
        raise CheckpointError(
            f"{repository!r} is no local folder, and could not be fetched from the Hugging Face Hub "
            f"({type(error).__name__}: {reason}); check the name and the connection, or download it and name the folder"
        ) from None
