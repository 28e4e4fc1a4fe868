"""Image i of a seed has the same bits whatever it is drawn with."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pysdk import Sampler
from pysdk.errors import OptionError

N = 17
PLAIN = {"seed": 11, "solver": "ddpm", "steps": 12}
GUIDED = PLAIN | {"guidance_scale": 2.5}
kinds = pytest.mark.parametrize("options", [PLAIN, GUIDED], ids=["plain", "guided"])


def draw(sampler: Sampler, n: int, start: int = 0, **options: object) -> np.ndarray:
    return sampler.sample(n, start=start, output="float32", **options).view(np.uint32)


@pytest.fixture(scope="module")
def gallery(conditional_plan: Path) -> dict[str, np.ndarray]:
    """All images in one batch."""
    with Sampler(conditional_plan, threads=1, batch_size=2 * N) as sampler:
        return {str(options): draw(sampler, N, **options) for options in (PLAIN, GUIDED)}


@kinds
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 16])
def test_any_batch_size(conditional_plan: Path, gallery: dict, options: dict, batch_size: int) -> None:
    if "guidance_scale" in options:
        batch_size = max(batch_size, 2)
    with Sampler(conditional_plan, threads=1, batch_size=batch_size) as sampler:
        np.testing.assert_array_equal(draw(sampler, N, **options), gallery[str(options)])


@kinds
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(conditional_plan: Path, gallery: dict, options: dict, threads: int) -> None:
    with Sampler(conditional_plan, threads=threads) as sampler:
        np.testing.assert_array_equal(draw(sampler, N, **options), gallery[str(options)])


@kinds
@pytest.mark.parametrize(("start", "n"), [(0, 1), (16, 1), (3, 2), (5, 7)])
def test_any_part_of_the_gallery(conditional: Sampler, gallery: dict, options: dict, start: int, n: int) -> None:
    np.testing.assert_array_equal(draw(conditional, n, start, **options), gallery[str(options)][start : start + n])


@kinds
def test_any_order(conditional: Sampler, gallery: dict, options: dict) -> None:
    """Backwards, one by one, with other work of the same chains in between."""
    for index in reversed(range(4)):
        draw(conditional, 1, index, seed=99, steps=2)
        np.testing.assert_array_equal(draw(conditional, 1, index, **options)[0], gallery[str(options)][index])


def test_guidance_scales_of_the_neighbours(conditional: Sampler) -> None:
    scales = [2.5, 0.0, 7.0, 1.0, -1.0]
    together = draw(conditional, 5, **(PLAIN | {"guidance_scale": scales}))
    for index, scale in enumerate(scales):
        alone = draw(conditional, 1, index, **(PLAIN | {"guidance_scale": scale}))
        np.testing.assert_array_equal(together[index], alone[0])


@kinds
def test_a_fresh_process(conditional_plan: Path, gallery: dict, options: dict, tmp_path: Path) -> None:
    program = "import sys, numpy as np; from pysdk import Sampler; np.save(sys.argv[2], Sampler(sys.argv[1]).sample"
    program += f"(3, start=4, output='float32', **{options!r}))"
    subprocess.run([sys.executable, "-c", program, conditional_plan, tmp_path / "x.npy"], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy").view(np.uint32), gallery[str(options)][4:7])


@kinds
def test_an_engine_that_depends_on_the_batch_gets_full_ones(padded_plan: Path, options: dict) -> None:
    with Sampler(padded_plan, threads=1) as sampler:
        together = draw(sampler, 7, **options)
        for start, n in [(0, 1), (6, 1), (1, 3), (2, 5)]:
            np.testing.assert_array_equal(draw(sampler, n, start, **options), together[start : start + n])
        widths = {chain.network_input.shape[0] for _, chain in sampler._executor._idle}
    assert widths == {4}


def test_padding_is_no_image(padded_plan: Path, gallery: dict) -> None:
    """The images equal those without padding here, where the engine is batch invariant after all."""
    with Sampler(padded_plan, threads=1) as sampler:
        np.testing.assert_array_equal(draw(sampler, 5, **PLAIN), gallery[str(PLAIN)][:5])
        previews = list(sampler.stream(5, output="float32", every=6, **PLAIN))
        assert [preview.x.shape[0] for preview in previews] == [5, 5]
        np.testing.assert_array_equal(previews[-1].x.view(np.uint32), gallery[str(PLAIN)][:5])


def test_an_engine_that_depends_on_the_batch_keeps_its_size(padded_plan: Path) -> None:
    with pytest.raises(OptionError, match=r"batch_size is 5, but .* the size it was built for, 4; leave batch_size"):
        Sampler(padded_plan, batch_size=5)
    Sampler(padded_plan, batch_size=4).close()
