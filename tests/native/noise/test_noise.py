"""The noise: known answers, the same bits everywhere, and a normal distribution."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pysdk import _testing, noise
from pysdk.errors import OptionError

UINT64 = st.integers(0, 2**64 - 1)
PHILOX = pytest.mark.parametrize("philox", [_testing.philox, noise.philox], ids=["native", "numpy"])


def bits(x: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(x).view(np.uint32)


@PHILOX
@pytest.mark.parametrize(
    ("seed", "counter", "words"),
    [
        (0, [0] * 4, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (2**64 - 1, [2**32 - 1] * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ],
)
def test_philox_known_answers(
    philox: Callable[..., NDArray[np.uint32]], seed: int, counter: list[int], words: list[int]
):
    assert philox(seed, np.array([counter], np.uint32)).tolist() == [words]


@given(seed=UINT64, numbers=st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4))
def test_philox_equals_the_definition_in_python_integers(seed: int, numbers: list[int]):
    c = list(numbers)
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    counter = np.array([numbers], np.uint32)
    assert _testing.philox(seed, counter).tolist() == noise.philox(seed, counter).tolist() == [c]


@settings(deadline=None)
@given(
    seed=UINT64,
    images=st.lists(UINT64, min_size=1, max_size=3),
    draw=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 19), st.integers(1, 19)),
)
def test_native_and_numpy_normals_have_the_same_bits(seed: int, images: list[int], draw: int, shape: tuple[int, ...]):
    index = np.array(images, np.uint64)
    native = _testing.normal(seed, index, draw, shape)
    assert native.shape == (len(images), *shape)
    np.testing.assert_array_equal(bits(native), bits(noise.normal(seed, images, draw, shape)))


def test_an_image_does_not_depend_on_its_neighbours_and_prefixes_agree():
    images = np.array([5, 2**32 + 5, 2**63, 0], np.uint64)
    batch = _testing.normal(1, images, 3, (3, 8, 9))
    for i, image in enumerate(images):
        alone = _testing.normal(1, images[i : i + 1], 3, (3, 8, 9))[0]
        np.testing.assert_array_equal(bits(batch[i]), bits(alone))
        short = _testing.normal(1, np.array([image]), 3, (7,))[0]
        np.testing.assert_array_equal(bits(batch[i].ravel()[:7]), bits(short))
    assert len({row.tobytes() for row in batch}) == len(images)


def test_seed_per_image():
    seeds, images = [1, 2**64 - 1, 7], [4, 4, 9]
    batch = noise.normal(seeds, images, 0, (1, 5, 5))
    for i in range(3):
        np.testing.assert_array_equal(bits(batch[i : i + 1]), bits(noise.normal(seeds[i], images[i], 0, (1, 5, 5))))


@pytest.mark.parametrize("isa", ["avx512", "avx2", "baseline"])
def test_every_instruction_set_gives_the_same_bits(isa: str):
    code = (
        "import sys, numpy as np; from pysdk import _native, _testing;"
        "assert _native.isa() == sys.argv[1], _native.isa();"
        "z = _testing.normal(3, np.arange(5, dtype=np.uint64), 1, (3, 31, 33));"
        "e = _testing.exp(np.linspace(-100, 100, 9999, dtype=np.float32));"
        "sys.stdout.buffer.write(z.tobytes() + e.tobytes())"
    )
    command = [sys.executable, "-c", code, isa]
    made = subprocess.run(command, env=os.environ | {"PYSDK_ISA": isa}, capture_output=True, check=False)
    if b"this machine and build have" in made.stderr:
        pytest.skip(f"no {isa} here")
    assert made.returncode == 0, made.stderr.decode()
    z = noise.normal(3, np.arange(5), 1, (3, 31, 33))
    e = noise.exp(np.linspace(-100, 100, 9999, dtype=np.float32))
    assert made.stdout == z.tobytes() + e.tobytes()


def test_an_unknown_instruction_set_is_an_error():
    command = [sys.executable, "-c", "from pysdk import _native; _native.isa()"]
    made = subprocess.run(command, env=os.environ | {"PYSDK_ISA": "sse9"}, capture_output=True, check=False, text=True)
    assert made.returncode != 0
    assert "PYSDK_ISA is 'sse9'; this machine and build have" in made.stderr


@pytest.fixture(scope="module")
def sample() -> NDArray[np.float64]:
    """Two million normals of one gallery, as float64."""
    return _testing.normal(2024, np.arange(2000, dtype=np.uint64), 0, (1000,)).astype(np.float64)


def test_moments(sample: NDArray[np.float64]):
    n = sample.size  # the bounds are five standard errors of each moment
    assert abs(sample.mean()) < 5 / math.sqrt(n)
    assert abs((sample**2).mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs((sample**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((sample**4).mean() - 3) < 5 * math.sqrt(96 / n)


def test_tails(sample: NDArray[np.float64]):
    n = sample.size
    for limit in (2.0, 3.0, 4.0, 4.5):
        expected = n * math.erfc(limit / math.sqrt(2))
        assert abs((np.abs(sample) > limit).sum() - expected) < 5 * math.sqrt(expected)


def test_kolmogorov_smirnov(sample: NDArray[np.float64]):
    x = np.sort(sample, axis=None)
    cdf = 0.5 * (1 + np.vectorize(math.erf)(x[::20] / math.sqrt(2)))
    distance = np.abs(cdf - np.arange(0, x.size, 20) / x.size).max()
    assert distance < 1.95 / math.sqrt(x.size)  # p = 0.001


def test_no_correlation_between_neighbours_draws_images_and_seeds(sample: NDArray[np.float64]):
    n = sample.size
    images = np.arange(2000, dtype=np.uint64)
    others = [
        np.roll(sample, 1, axis=1),
        np.roll(sample, 2, axis=1),
        np.roll(sample, 1, axis=0),
        _testing.normal(2024, images, 1, (1000,)),
        _testing.normal(2025, images, 0, (1000,)),
    ]
    for other in others:
        assert abs((sample * other).mean()) < 5 / math.sqrt(n)
        assert abs((sample**2 * other**2).mean() - 1) < 5 * math.sqrt(8 / n)


def ulps(got: NDArray[np.float32], exact: NDArray[np.float64]) -> float:
    """Largest error in units of the last place of the exact value rounded to float32."""
    return float((np.abs(got.astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(np.float32))).max())


# Measured on these grids, in units of the last place: log 0.83, sin 1.69, cos 1.23, exp 1.00. The bounds add a margin.
def test_log_error():
    u = np.concatenate([np.linspace(2.0**-32, 1, 400_001), 2.0 ** -np.linspace(0, 32, 400_001)])[1:-1].astype(
        np.float32
    )
    u = u[u < 1]
    assert ulps(noise.log(u), np.log(u.astype(np.float64))) < 1.0


def test_sin_and_cos_error():
    f = np.linspace(-0.5, 0.5, 400_001).astype(np.float32)
    f = f[f != 0]
    assert ulps(noise.sin_quarter(f), np.sin(f.astype(np.float64) * np.pi / 2)) < 2.0
    assert ulps(noise.cos_quarter(f), np.cos(f.astype(np.float64) * np.pi / 2)) < 1.5


def test_exp_error_and_saturation():
    x = np.linspace(-87, 88, 400_001).astype(np.float32)
    assert ulps(_testing.exp(x), np.exp(x.astype(np.float64))) < 1.5
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(bits(_testing.exp(x)), bits(noise.exp(x)))
        special = np.array([-np.inf, -200, 200, np.inf, np.nan, 0.0, -0.0], np.float32)
        got = _testing.exp(special)
        np.testing.assert_array_equal(got, noise.exp(special))
    ends = _testing.exp(np.array([-87, -87, 88, 88], np.float32))
    np.testing.assert_array_equal(got[:4], ends)
    assert np.isnan(got[4])
    np.testing.assert_array_equal(got[5:], [1, 1])


def test_errors_name_value_and_remedy():
    images = np.zeros(1, np.uint64)
    with pytest.raises(TypeError, match=r"images has dtype int64; convert it with .astype\(numpy.uint64\)"):
        _testing.normal(0, np.zeros(1, np.int64), 0, (4,))
    with pytest.raises(TypeError, match="images is a list; a numpy array of uint64 is needed"):
        _testing.normal(0, [0], 0, (4,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"images has shape \(1, 1\)"):
        _testing.normal(0, images[None], 0, (4,))
    with pytest.raises(ValueError, match="shape holds -1"):
        _testing.normal(0, images, 0, (-1,))
    with pytest.raises(ValueError, match="more than 2\\^33 elements"):
        _testing.normal(0, images, 0, (2**40, 2**40))
    with pytest.raises(TypeError):
        _testing.normal(-1, images, 0, (4,))
    with pytest.raises(OptionError, match="between 0 and 2\\^64 - 1"):
        noise.normal(0, [-1], 0, (4,))
    with pytest.raises(OptionError, match="draw is -1"):
        noise.normal(0, [0], -1, (4,))
    assert _testing.normal(0, np.zeros(0, np.uint64), 0, (4,)).shape == (0, 4)
