"""The noise of every image, in numpy: the same bits as `csrc/noise`, and the reference for any other device.

One seed names an infinite gallery. Element e of draw d of image i is normal number e % 4 of the Philox4x32-10 counter
(e // 4, d, i low, i high) under the key `seed`; draw 0 is x_T, draw k + 1 belongs to row k of the step table, draw
2^31 + k noises the known region of an inpainted image in row k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pysdk.errors import OptionError

Float = NDArray[np.float32]
Word = NDArray[np.uint32]

INITIAL: Final = 0
FIRST_ROW: Final = 1
KNOWN: Final = 1 << 31
MAX_ROWS: Final = 1 << 24
"""Rows of one chain: how far the streams of draws are apart."""

_MULTIPLIERS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_SQRT_HALF: Final = np.uint32(0x3F3504F3)
_LN2_HIGH: Final = np.float32(float.fromhex("0x1.62e4p-1"))
_LN2_LOW: Final = np.float32(float.fromhex("0x1.7f7d1cp-20"))
_LOG2_E: Final = np.float32(float.fromhex("0x1.715476p+0"))
_ROUND: Final = np.float32(float.fromhex("0x1.8p+23"))


def _coefficients(*digits: str) -> tuple[np.float32, ...]:
    return tuple(np.float32(float.fromhex(text)) for text in digits)


# Highest power first, the numbers of csrc/noise/float32.h.
_LOG: Final = _coefficients(
    "-0x1.41ee0ap-4", "0x1.07d0f0p-3", "-0x1.0ce07cp-3", "0x1.226e4ap-3",
    "-0x1.54788ap-3", "0x1.99a596p-3", "-0x1.000220p-2", "0x1.55554ap-2",
)  # fmt: skip
_SIN: Final = _coefficients("-0x1.2d9bb8p-8", "0x1.465ec6p-4", "-0x1.4abbbap-1", "0x1.921fb6p+0")
_COS: Final = _coefficients("0x1.db650ep-11", "-0x1.55cb98p-6", "0x1.03c1eap-2", "-0x1.3bd3ccp+0", "0x1p+0")
_EXP: Final = _coefficients("0x1.6db4e8p-10", "0x1.123bdep-7", "0x1.55545ep-5", "0x1.55548ep-3", "0x1p-1")


def philox(seed: int, counters: Word) -> Word:
    """Philox4x32-10 (Salmon et al. 2011) of each counter under the 64-bit key `seed`, low word first.

    Args:
        seed: 0 <= seed < 2^64.
        counters: uint32 (n, 4).

    Returns:
        uint32 (n, 4).
    """
    c0, c1, c2, c3 = (counters[:, i] for i in range(4))
    return np.stack(_philox(_uint64("seed", [seed]), c0, c1, c2, c3), axis=-1)


def normal(seed: ArrayLike, images: ArrayLike, draw: int, shape: Sequence[int]) -> Float:
    """Standard normals of some images of a gallery in one draw.

    Args:
        seed: one seed, or one per image, 0 <= seed < 2^64.
        images: indices in the gallery, shape (n,), 0 <= index < 2^64.
        draw: 0 for x_T, k + 1 for row k.
        shape: that of one image, usually (C, H, W).

    Returns:
        float32 (n, *shape).
    """
    index = _uint64("images", images)
    seeds = np.broadcast_to(_uint64("seed", seed), index.shape)
    if not 0 <= draw < 2**32:
        raise OptionError(f"draw is {draw}; it must be between 0 and 2^32 - 1")
    size = int(np.prod(shape, dtype=np.int64))
    element = np.arange((size + 3) // 4, dtype=np.uint32)[None, :]
    words = _philox(
        seeds[:, None],
        np.broadcast_to(element, (len(index), element.shape[1])),
        np.full((1, 1), draw, dtype=np.uint32),
        _low(index)[:, None],
        _high(index)[:, None],
    )
    pairs = (*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3]))
    flat = np.stack(pairs, axis=-1).reshape(len(index), -1)[:, :size]
    return np.ascontiguousarray(flat).reshape(len(index), *shape)


def log(x: Float) -> Float:
    """Natural logarithm of positive normal numbers: x = 2^e (1 + f), log(1 + f) = f - f^2/2 + f^3 P(f)."""
    shifted = x.view(np.uint32) - _SQRT_HALF
    e = (shifted.view(np.int32) >> 23).astype(np.float32)
    f = ((shifted & np.uint32(0x007FFFFF)) + _SQRT_HALF).view(np.float32) - np.float32(1)
    f2 = f * f
    y: Float = f2 * f * _horner(_LOG, f)
    y = y + e * _LN2_LOW
    y = y - np.multiply(np.float32(0.5), f2)  # a function, as the operator is float64 to numpy 2.2's types
    y = y + f
    y = y + e * _LN2_HIGH
    return y


def sin_quarter(f: Float) -> Float:
    """sin(f * pi/2) for f in [-1/2, 1/2]."""
    return _horner(_SIN, f * f) * f


def cos_quarter(f: Float) -> Float:
    """cos(f * pi/2) for f in [-1/2, 1/2]."""
    return _horner(_COS, f * f)


def exp(x: Float) -> Float:
    """e^x, saturating at x = -87 and x = 88; NaN stays NaN. x = n ln 2 + r, e^r = 1 + r + r^2 Q(r)."""
    low, high = np.float32(-87), np.float32(88)
    v = np.where(x < low, low, np.where(x > high, high, x))
    shifted: Float = v * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = v - n * _LN2_HIGH - n * _LN2_LOW
    y: Float = _horner(_EXP, r) * r * r + r + np.float32(1)
    y = y * ((shifted.view(np.uint32) << np.uint32(23)) + np.uint32(0x3F800000)).view(np.float32)
    return y


def _horner(coefficients: tuple[np.float32, ...], x: Float) -> Float:
    y: Float = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = y * x + coefficient
    return y


def _box_muller(w0: Word, w1: Word) -> tuple[Float, Float]:
    """Two words to two normals: u = float(w0 | 1) / 2^32, the top two bits of w1 are the quadrant of the angle."""
    u = (w0 | np.uint32(1)).astype(np.float32) * np.float32(2.0**-32)
    radius = np.sqrt(np.float32(-2) * log(u))
    offset = (w1 & np.uint32(0x3FFFFFFF)).view(np.int32) - np.int32(1 << 29)
    f = offset.astype(np.float32) * np.float32(2.0**-30)
    s, c = sin_quarter(f), cos_quarter(f)
    quadrant = w1 >> np.uint32(30)
    odd = (quadrant & np.uint32(1)) != 0
    flip_first = ((quadrant + np.uint32(1)) & np.uint32(2)) << np.uint32(30)
    flip_second = (quadrant & np.uint32(2)) << np.uint32(30)
    first = (np.where(odd, s, c).view(np.uint32) ^ flip_first).view(np.float32)
    second = (np.where(odd, c, s).view(np.uint32) ^ flip_second).view(np.float32)
    return radius * first, radius * second


def _philox(key: NDArray[np.uint64], c0: Word, c1: Word, c2: Word, c3: Word) -> tuple[Word, Word, Word, Word]:
    k0, k1 = _low(key), _high(key)
    for _ in range(10):
        a = c0.astype(np.uint64) * _MULTIPLIERS[0]
        b = c2.astype(np.uint64) * _MULTIPLIERS[1]
        c0, c1, c2, c3 = _high(b) ^ c1 ^ k0, _low(b), _high(a) ^ c3 ^ k1, _low(a)
        k0, k1 = k0 + np.uint32(_WEYL[0]), k1 + np.uint32(_WEYL[1])
    return c0, c1, c2, c3


def _low(x: NDArray[np.uint64]) -> Word:
    word: Word = (x & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return word


def _high(x: NDArray[np.uint64]) -> Word:
    word: Word = (x >> np.uint64(32)).astype(np.uint32)
    return word


def _uint64(name: str, values: ArrayLike) -> NDArray[np.uint64]:
    """Integers in [0, 2^64) as a one-dimensional array; Python integers keep all their bits."""
    numbers = np.atleast_1d(values if isinstance(values, np.ndarray) else np.array(values, dtype=object))
    if numbers.ndim != 1 or not all(isinstance(n, (int, np.integer)) and 0 <= int(n) < 2**64 for n in numbers):
        raise OptionError(f"{name} is {values!r}; it must hold integers between 0 and 2^64 - 1")
    return numbers.astype(np.uint64)
