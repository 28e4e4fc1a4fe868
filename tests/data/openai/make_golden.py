"""Makes the .npz files of this folder: outputs of OpenAI's own code for small networks with known weights.

    PYTHONPATH=tests:improved-diffusion:guided-diffusion python tests/data/openai/make_golden.py

Needs both packages of that name (github.com/openai, MIT licence); only numbers they compute are kept. Weights are drawn
by `kit.importers.openai_weights.draw_weights` from the names and shapes stored in each file, noise by
`pysdk.noise.normal`, so a test makes the same again without them. Float32, one thread.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kit.importers.openai_weights import IMAGES, LABELS, SEED, draw_weights
from torch import nn

from pysdk.noise import normal

FOLDER = Path(__file__).parent
TIMES = (0, 60)

CASES: dict[str, tuple[str, dict[str, str]]] = {
    # learned sigmas, cosine, timesteps rescaled by default, legacy attention with 4 and 2 heads, scale-shift
    "improved": (
        "improved_diffusion",
        {
            "image_size": "32",
            "num_channels": "32",
            "num_res_blocks": "1",
            "attention_resolutions": "8,4",
            "num_heads": "4",
            "num_heads_upsample": "2",
            "learn_sigma": "True",
            "diffusion_steps": "80",
            "noise_schedule": "cosine",
            "timestep_respacing": "20",
        },
    ),
    # DDIM, embedding added before the norm, one attention head
    "improved_ddim": (
        "improved_diffusion",
        {
            "image_size": "32",
            "num_channels": "32",
            "num_res_blocks": "1",
            "attention_resolutions": "4",
            "num_heads": "1",
            "use_scale_shift_norm": "False",
            "sigma_small": "True",
            "diffusion_steps": "100",
            "rescale_timesteps": "False",
            "timestep_respacing": "ddim25",
            "use_ddim": "True",
        },
    ),
    # everything of ADM: classes, learned sigmas, residual up and down, new attention order, sections of timesteps
    "guided": (
        "guided_diffusion",
        {
            "image_size": "16",
            "num_channels": "32",
            "num_res_blocks": "2",
            "channel_mult": "1,2",
            "attention_resolutions": "16,8",
            "num_head_channels": "16",
            "learn_sigma": "True",
            "class_cond": "True",
            "resblock_updown": "True",
            "use_new_attention_order": "True",
            "use_scale_shift_norm": "True",
            "diffusion_steps": "100",
            "timestep_respacing": "4,6,10",
        },
    ),
    # data prediction, large fixed sigma, legacy attention with a head width
    "guided_xstart": (
        "guided_diffusion",
        {
            "image_size": "16",
            "num_channels": "32",
            "num_res_blocks": "1",
            "channel_mult": "1,2,2",
            "attention_resolutions": "8",
            "num_head_channels": "32",
            "class_cond": "True",
            "predict_xstart": "True",
            "diffusion_steps": "100",
            "timestep_respacing": "20",
        },
    ),
}

CLASSIFIER = {
    "image_size": "64",
    "classifier_width": "32",
    "classifier_depth": "1",
    "classifier_attention_resolutions": "8",
}


def parsed(defaults: dict[str, Any], flags: dict[str, str], package: Any) -> dict[str, Any]:
    """Upstream's own parsing of its flags."""
    parser = package.argparse.ArgumentParser()
    package.add_dict_to_argparser(parser, defaults)
    return vars(parser.parse_args([f"--{name}={value}" for name, value in flags.items()]))


def filled(module: nn.Module) -> tuple[nn.Module, str]:
    """The module with drawn weights, and its names and shapes as JSON."""
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    module.load_state_dict(draw_weights(shapes))
    return module.eval(), json.dumps(shapes)


@contextmanager
def our_noise() -> Iterator[Callable[[int, tuple[int, ...]], torch.Tensor]]:
    """torch.randn_like returns draws 1, 2, ... of the gallery; the value draws any by number."""
    count, original = 0, torch.randn_like

    def draw(number: int, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(normal(SEED, IMAGES, number, shape))

    def randn_like(x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return draw(count, tuple(x.shape[1:]))

    torch.randn_like = randn_like
    try:
        yield draw
    finally:
        torch.randn_like = original


def make(package_name: str, flags: dict[str, str]) -> dict[str, Any]:
    """Per-call outputs at `TIMES` and the end of a whole chain."""
    package = importlib.import_module(f"{package_name}.script_util")
    values = parsed(package.model_and_diffusion_defaults() | {"use_ddim": False}, flags, package)
    use_ddim = values.pop("use_ddim")
    module, diffusion = package.create_model_and_diffusion(**values)
    module, shapes = filled(module)
    shape = (3, values["image_size"], values["image_size"])
    labels = {"y": torch.from_numpy(LABELS)} if values["class_cond"] else {}
    with our_noise() as draw, torch.no_grad():
        x = draw(0, shape)
        scale = 1000 / values["diffusion_steps"] if values["rescale_timesteps"] else 1
        calls = [module(x, torch.full((len(x),), t * scale, dtype=torch.float32), **labels) for t in TIMES]
        loop = diffusion.ddim_sample_loop if use_ddim else diffusion.p_sample_loop
        end = loop(module, tuple(x.shape), noise=x, model_kwargs=labels)
    return {"calls": torch.stack(calls).numpy(), "end": end.numpy(), "shapes": shapes, "flags": json.dumps(flags)}


def make_classifier(flags: dict[str, str]) -> dict[str, Any]:
    """Logits at `TIMES`."""
    package = importlib.import_module("guided_diffusion.script_util")
    module, shapes = filled(package.create_classifier(**parsed(package.classifier_defaults(), flags, package)))
    x = torch.from_numpy(normal(SEED, IMAGES, 0, (3, 64, 64)))
    with torch.no_grad():
        calls = [module(x, torch.full((len(x),), t, dtype=torch.float32)) for t in TIMES]
    return {"calls": torch.stack(calls).numpy(), "shapes": shapes, "flags": json.dumps(flags)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, (package, flags) in CASES.items():
        np.savez_compressed(FOLDER / f"{name}.npz", times=TIMES, **make(package, flags))
    np.savez_compressed(FOLDER / "classifier.npz", times=TIMES, **make_classifier(CLASSIFIER))
