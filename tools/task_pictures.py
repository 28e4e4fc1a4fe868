"""Makes the pictures of docs/tasks/ and docs/guidance.md, and the table of round trips, with the shipped model.

python tools/task_pictures.py [engine.plan]
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from pysdk import Images, Sampler
from pysdk.datasets.loading import load_dataset

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SHOWN = 8


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Decibels, over all images, of uint8."""
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float(10 * np.log10(255**2 / error))


def save(name: str, *rows: np.ndarray) -> None:
    """Rows of images as one picture."""
    Images(np.concatenate(rows)).save(PICTURES / f"{name}.png", columns=len(rows[0]))


@click.command()
@click.argument("plan", type=click.Path(path_type=Path, exists=True), default="engine.plan")
@click.option("--count", default=32, show_default=True, help="Images of the round trip.")
def main(plan: Path, count: int) -> None:
    """Write the pictures, and print the table of round trips."""
    data = load_dataset("fashion-mnist", "test")
    if data.labels is None:
        raise click.ClickException("The test images have no labels.")
    images: np.ndarray = data.images[:count].transpose(0, 2, 3, 1)
    labels = data.labels[:count]
    few, few_labels = images[:SHOWN], labels[:SHOWN]
    with Sampler(plan) as sampler:
        trips = {}
        for steps in (10, 25, 50, 100, 250):
            latents = sampler.encode(images, labels=labels, steps=steps)
            trips[steps] = sampler.decode(latents, labels=labels, steps=steps)
        click.echo("| steps | " + " | ".join(map(str, trips)) + " |")
        click.echo("|---" * (len(trips) + 1) + "|")
        click.echo("| PSNR, dB | " + " | ".join(f"{psnr(images, trip):.1f}" for trip in trips.values()) + " |")
        save("round_trip", few, trips[50][:SHOWN])

        ends = images[1], images[2]
        way = np.repeat(labels[1:3], [5, 4])
        save(
            "interpolate",
            *(sampler.interpolate(*ends, n=9, labels=way, timestep=timestep) for timestep in (None, 300, 700)),
        )
        redrawn = [sampler.image_to_image(few, strength=s, labels=few_labels) for s in (0.3, 0.5, 0.8)]
        save("image_to_image", few, *redrawn)

        mask: np.ndarray = np.zeros(few.shape[1:3], bool)
        mask[:, mask.shape[1] // 2 :] = True
        drawn = [sampler.inpaint(few, mask, labels=few_labels, jump_n_sample=n) for n in (1, 10)]
        previews = {preview.step: preview for preview in sampler.stream(n=2, labels=(9, 6), steps=50)}
        shown = [previews[step] for step in (1, 5, 10, 20, 30, 40, 50)]
        forming = [[(p.x[i], p.denoised[i]) for p in shown] for i in range(2)]
        save("stream", *(np.stack(row) for image in forming for row in zip(*image, strict=True)))

        scales = (0.0, 1.0, 2.0, 4.0, 8.0)
        save("guidance", *(sampler.sample(n=8, labels=[9] * 4 + [6] * 4, guidance_scale=w) for w in scales))

        save("inpaint", np.where(mask[..., None], np.uint8(128), few), *drawn)


if __name__ == "__main__":
    main()
