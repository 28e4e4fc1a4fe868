"""No damage, and no edit with right checksums, gives anything else than what was written."""

import random
from pathlib import Path

from kit.plan_files import contents

from pysdk.errors import PlanError
from pysdk.plan.manifest import (
    Manifest,
    encode_manifest,
    parse_manifest,
)


def outcome(path: Path, expected: tuple[Manifest, dict[str, bytes]]) -> bool:
    """True if refused; otherwise what was read must be what was written."""
    try:
        found = contents(path)
    except PlanError:
        return True
    assert found == expected
    return False


def test_every_single_byte_flip_is_detected(path: Path) -> None:
    expected, good = contents(path), path.read_bytes()
    bits = random.Random(0)
    for index in range(len(good)):
        for flip in (0xFF, 1 << bits.randrange(8)):
            data = bytearray(good)
            data[index] ^= flip
            path.write_bytes(data)
            assert outcome(path, expected), f"byte {index} ^ {flip:#x} went unseen"


def test_every_truncation_and_any_appendix_is_detected(path: Path) -> None:
    expected, good = contents(path), path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert outcome(path, expected)
    for tail in (b"\0", b"x" * 22, good, good[-22:]):
        path.write_bytes(good + tail)
        assert outcome(path, expected)
        path.write_bytes(tail + good)
        assert outcome(path, expected)


def test_splices_never_give_anything_else(path: Path) -> None:
    expected, good = contents(path), path.read_bytes()
    dice = random.Random(1)
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 4)):
            a, b, c = (dice.randrange(len(data) + 1) for _ in range(3))
            piece = dice.choice(
                [data[min(a, b) : max(a, b)], dice.randbytes(dice.randrange(40)), bytes(dice.randrange(9))]
            )
            data[c : c + dice.choice([0, len(piece)])] = piece
        path.write_bytes(data)
        outcome(path, expected)


def test_damaged_manifests_with_right_checksums(path: Path) -> None:
    """The schema alone must hold: what gets through reads the same again."""
    good = encode_manifest(contents(path)[0])
    dice = random.Random(2)
    tokens = [
        b"null",
        b"-1",
        b"1e999",
        b"0",
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"\\u0000",
        b"true",
        b"1e-400",
        b"\\ud800",
        b"\xc3",
    ]
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 3)):
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(4)] = dice.choice([*tokens, dice.randbytes(2)])
        try:
            manifest = parse_manifest(bytes(data))
        except PlanError:
            continue
        assert parse_manifest(encode_manifest(manifest)) == manifest
