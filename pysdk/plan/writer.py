"""Writes plans, whole or not at all."""

import hashlib
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from pysdk.errors import OptionError, OptionTypeError, OutputError
from pysdk.files.atomic import atomic_file
from pysdk.plan.container import MAX_MEMBER_BYTES, directory, lay_out, local_header
from pysdk.plan.manifest import (
    MANIFEST_NAME,
    MAX_MEMBERS,
    NAME_PATTERN,
    Manifest,
    MemberInfo,
    encode_manifest,
    parse_manifest,
)

Source = bytes | bytearray | memoryview | Path
"""Where a member's bytes come from: memory, or a file that is copied."""

_CHUNK = 1 << 22


def write_plan(path: str | os.PathLike[str], manifest: Manifest, members: Mapping[str, Source]) -> Manifest:
    """Write a plan, whole or not at all, and return the manifest as written (`members` and versions filled in).

    The same manifest and members give the same bytes. Writing checks as strictly as reading.

    Raises:
        OptionError: `Plan.open` would refuse it, it is too big, or a member's file cannot be read.
        OutputError: the plan cannot be written, or a member's file changed while it was copied.
    """
    checked = {name: _measure(name, members[name]) for name in sorted(members)}
    if len(checked) >= MAX_MEMBERS:
        raise OptionError(f"a plan holds at most {MAX_MEMBERS - 1} members, got {len(checked)}")
    total = sum(info.size for info, _ in checked.values())
    if total > MAX_MEMBER_BYTES:
        raise OptionError(f"a plan is smaller than 4 GiB, the members given have {total} bytes; use fewer engines")
    manifest = msgspec.structs.replace(manifest, members={name: info for name, (info, _) in checked.items()})
    head = encode_manifest(manifest)
    sizes = [(name, info.size, crc) for name, (info, crc) in checked.items()]
    entries = lay_out([(MANIFEST_NAME, len(head), zlib.crc32(head)), *sizes])
    with atomic_file(path) as file:
        for entry in entries:
            file.write(local_header(entry))
            crc = 0
            for chunk in _chunks(entry.name, members.get(entry.name, head)):
                crc = zlib.crc32(chunk, crc)
                file.write(chunk)
            if crc != entry.crc or file.tell() != entry.data + entry.size:
                raise OutputError(f"the source of {entry.name!r} changed while it was copied; try again")
        file.write(directory(entries))
    return parse_manifest(head)


def _measure(name: str, source: Source) -> tuple[MemberInfo, int]:
    """Size, SHA-256 and CRC-32 of a future member."""
    if not re.match(NAME_PATTERN, name):
        raise OptionError(f"a member cannot be named {name!r}; use lower-case letters, digits and . _ - only")
    size, crc, digest = 0, 0, hashlib.sha256()
    for chunk in _chunks(name, source):
        size, crc = size + len(chunk), zlib.crc32(chunk, crc)
        digest.update(chunk)
    if not size:
        raise OptionError(f"member {name!r} is empty; write it before the plan")
    return MemberInfo(size=size, sha256=digest.hexdigest()), crc


def _chunks(name: str, source: Source) -> Iterator[bytes | memoryview]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield memoryview(source).cast("B")
    elif isinstance(source, Path):
        try:
            with source.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise OptionError(f"cannot read {str(source)!r} for {name!r}: {error.strerror or error}") from error
    else:
        raise OptionTypeError(f"member {name!r} is bytes or a Path, got {type(source).__name__}")
