"""pysdk likelihood: the variational bound of a plan on a data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from pysdk.cli.parsing import deadline_option, max_memory_option, steps_of, trust_option
from pysdk.errors import OptionError
from pysdk.evaluation.sources import open_source
from pysdk.files.atomic import atomic_file, check_target
from pysdk.likelihood.bound import Likelihood
from pysdk.sampler import Sampler

_Function = TypeVar("_Function", bound=Callable[..., Any])


def question_options(default_count: int) -> Callable[[_Function], _Function]:
    """The arguments of `ask` on a command line."""
    decorators = [
        click.argument("plan", type=click.Path(path_type=Path)),
        click.option("--data", default="fashion-mnist", show_default=True, help="Data set, folder or .npz."),
        click.option("--split", default="test", show_default=True, help="Of a data set."),
        click.option("-n", "count", default=default_count, show_default=True, help="Images: the first so many."),
        click.option("--seed", default=0, show_default=True, help="Of the noise."),
        click.option("--steps", help="Number of steps, or a rule such as ddim50 (default: all timesteps)."),
        click.option("--variance", help="small, large or learned (default: the plan's)."),
        click.option("--label", type=int, help="Class of every image (default: those of the data)."),
        click.option("--threads", type=int, help="Processors to use (default: all)."),
        click.option("--batch-size", type=int, help="Images per network call (default: the plan's)."),
        deadline_option,
        max_memory_option,
        trust_option,
    ]

    def decorate(function: _Function) -> _Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def ask(
    plan: Path,
    data: str,
    split: str,
    count: int,
    seed: int,
    steps: str | None,
    variance: str | None,
    label: int | None,
    threads: int | None,
    batch_size: int | None,
    deadline: float | None,
    max_memory: int | None,
    trust: bool,
    terms: int | None = None,
) -> Likelihood:
    """The bound of the first images of a data set."""
    with Sampler(plan, threads=threads, batch_size=batch_size, max_memory=max_memory, trust=trust) as sampler:
        source = open_source(data, split, count)
        batches = list(source.batches(1000))
        images = np.concatenate([images for images, _ in batches])
        labels: Any = label
        if label is None and sampler.plan.manifest.model.num_classes is not None:
            known = [labels for _, labels in batches if labels is not None]
            if not known:
                raise OptionError(f"{data} has no labels, but the plan's model has classes; give --label")
            labels = np.concatenate(known)
        return sampler.likelihood(
            images,
            labels=labels,
            seed=seed,
            steps=steps_of(steps, None),
            terms=terms,
            variance=variance,
            deadline=deadline,
        )


@click.command("likelihood")
@question_options(default_count=100)
@click.option("--terms", type=int, help="Terms to evaluate, an unbiased estimate (default: all).")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file with the terms of every image.")
def command(out: Path | None, **arguments: Any) -> None:
    """The variational bound of PLAN on images of a data set, in bits per dimension."""
    if out is not None:
        check_target(out)
    found = ask(**arguments)
    click.echo(found.summary())
    if out is not None:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
        result = {
            **settings,
            "bits_per_dim": found.bits_per_dim,
            "timesteps": found.timesteps.tolist(),
            "weights": found.weights.tolist(),
            "prior": found.prior.tolist(),
            "terms": found.terms.tolist(),
        }
        with atomic_file(out) as file:
            file.write(json.dumps(result).encode() + b"\n")
