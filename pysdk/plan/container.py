"""The bytes of a plan around its members: a zip of one exact layout, so that a reader can compare instead of trust.

The layout is a function of the members' names, sizes and CRCs alone; `docs/plan-format.md` states it.
"""

import re
import struct
from collections.abc import Iterable
from typing import NamedTuple

from pysdk.errors import PlanError
from pysdk.plan.manifest import MANIFEST_NAME, MAX_MEMBERS, NAME_PATTERN

ALIGNMENT = 64
MAX_FILE_BYTES = 2**32 - 2
"""One less than the value that marks zip64, which is not used."""
MAX_MEMBER_BYTES = MAX_FILE_BYTES - (1 << 23)
"""The most bytes in all members together; the rest is room for the manifest and the headers."""

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_EXTRA = struct.Struct("<3H")
_VERSION = 20
_DATE = (1 << 5) | 1  # 1980-01-01, the zero of zip
_ALIGNMENT_FIELD = 0xD935  # the extra field that zipalign writes: alignment, then zeros


class Entry(NamedTuple):
    """One member: its header starts at `offset`, its `size` bytes at `data`, a multiple of 64."""

    name: str
    size: int
    crc: int
    offset: int
    data: int


def lay_out(members: Iterable[tuple[str, int, int]]) -> list[Entry]:
    """Place (name, size, crc) one behind the other, in the given order."""
    entries: list[Entry] = []
    offset = 0
    for name, size, crc in members:
        unpadded = offset + _LOCAL.size + len(name) + _EXTRA.size
        data = unpadded + -unpadded % ALIGNMENT
        entries.append(Entry(name, size, crc, offset, data))
        offset = data + size
    return entries


def local_header(entry: Entry) -> bytes:
    """Header of a member, padded so that the data behind it is aligned."""
    name = entry.name.encode("ascii")
    extra = entry.data - entry.offset - _LOCAL.size - len(name)
    field = _EXTRA.pack(_ALIGNMENT_FIELD, extra - 4, ALIGNMENT).ljust(extra, b"\0")
    fixed = _LOCAL.pack(
        b"PK\3\4", _VERSION, 0, 0, 0, _DATE, entry.crc, entry.size, entry.size, len(name), len(field)
    )  # fmt: skip
    return fixed + name + field


def directory(entries: list[Entry]) -> bytes:
    """Central directory and end record: the bytes behind the last member."""
    start = entries[-1].data + entries[-1].size
    central = b"".join(
        _CENTRAL.pack(
            b"PK\1\2", _VERSION, _VERSION, 0, 0, 0, _DATE, e.crc, e.size, e.size, len(e.name), 0, 0, 0, 0, 0, e.offset
        ) + e.name.encode("ascii")
        for e in entries
    )  # fmt: skip
    return central + _END.pack(b"PK\5\6", 0, 0, len(entries), len(entries), len(central), start, 0)


def read_entries(file: memoryview) -> list[Entry]:
    """Members of a plan, manifest first. PlanError, a clause without the file's name, unless every byte fits."""
    first_name = bytes(file[_LOCAL.size : _LOCAL.size + len(MANIFEST_NAME)])
    if bytes(file[:4]) != b"PK\3\4" or first_name != MANIFEST_NAME.encode():
        raise PlanError("is not a plan (a plan is a zip file that begins with manifest.json)")
    if bytes(file[-_END.size :][:4]) != b"PK\5\6":
        raise PlanError("is cut short or has bytes behind its end")
    _, _, _, count, _, length, start, _ = _END.unpack(file[-_END.size :])
    if start + length + _END.size != len(file) or count > MAX_MEMBERS:
        raise PlanError(f"is cut short, edited, or has more than {MAX_MEMBERS} files")
    entries = lay_out(_read_directory(file[start : start + length]))
    names = [entry.name for entry in entries]
    if names != [MANIFEST_NAME, *sorted(set(names) - {MANIFEST_NAME})]:
        raise PlanError("has files twice or in another order than pysdk writes them")
    if entries[-1].data + entries[-1].size != start or bytes(file[start:]) != directory(entries):
        raise PlanError("has a zip directory that is not as pysdk writes it (repacked or edited)")
    for entry in entries:
        if bytes(file[entry.offset : entry.data]) != local_header(entry):
            raise PlanError(f"has a zip header of {entry.name!r} that disagrees with the zip directory")
    return entries


def _read_directory(central: memoryview) -> list[tuple[str, int, int]]:
    members: list[tuple[str, int, int]] = []
    while len(central) >= _CENTRAL.size:
        _, _, _, flags, method, _, _, crc, _, size, length, *_ = _CENTRAL.unpack(central[: _CENTRAL.size])
        name = bytes(central[_CENTRAL.size : _CENTRAL.size + length]).decode("ascii", "replace")
        if not re.match(NAME_PATTERN, name):
            raise PlanError(f"has a file named {name[:100]!r}, expected lower-case letters, digits and . _ - only")
        if flags or method:
            raise PlanError(f"has a file {name!r} that is compressed or encrypted, expected it stored as it is")
        members.append((name, size, crc))
        central = central[_CENTRAL.size + length :]
    if not members or central:
        raise PlanError("has a zip directory that is damaged")
    return members
