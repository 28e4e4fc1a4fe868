"""Files that strangers made to hang, crash or fill the machine, byte by byte."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from pathlib import Path

from PIL import Image

from pysdk.files.pictures import MAX_CHUNKS, MAX_PIXELS, MAX_SCANS


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 4, height: int = 4, *more: bytes) -> bytes:
    rows = zlib.compress(bytes(min(height, 64) * (width + 1)))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg(picture: Image.Image | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    (picture or Image.new("RGB", (16, 16))).save(out, "JPEG", **options)
    return out.getvalue()


def overlapping_exif() -> bytes:
    """20,000 tags, each of them all of 300 kB: 6 GB for whoever reads them."""
    count, size, segments = 20_000, 300_000, b""
    table = struct.pack("<2sHIH", b"II", 42, 8, count)
    table += b"".join(struct.pack("<HHII", 40_000 + tag, 7, size - 64, 32) for tag in range(count))
    table = table.ljust(size, b"\0")
    for start in range(0, size, 60_000):
        part = b"Exif\0\0" + table[start : start + 60_000]
        segments += b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part
    plain = jpeg()
    return plain[:2] + segments + plain[2:]


PICTURES = {
    "wide": png(100_000, 100_000),
    "line": png(MAX_PIXELS + 1, 1),
    "zero": png(0, 4),
    "chunks": png(4, 4, chunk(b"IDAT", b"") * (MAX_CHUNKS + 1)),
    "scans": jpeg(progressive=True).replace(
        b"\xff\xd9", b"\xff\xda\0\x08\1\1\0\0\x3f\0" * (MAX_SCANS + 1) + b"\xff\xd9"
    ),
    "text": b"hello",
    "empty": b"",
    "cut": jpeg()[:200],
}

BOMB = zlib.compress(bytes(50 << 20), 9)
IGNORED = {
    "zTXt": png(4, 4, chunk(b"zTXt", b"a\0\0" + BOMB)),
    "iTXt": png(4, 4, chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
    "iCCP": png(4, 4, chunk(b"iCCP", b"a\0\0" + BOMB)),
    "iCCPs": png(4, 4, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes((1 << 20) - 1), 9)) * 8000),
    "eXIf": png(4, 4, chunk(b"eXIf", bytes(20 << 20))),
    "late": png()[:-12] + chunk(b"zTXt", b"a\0\0" + BOMB) + png()[-12:],
}
"""Bombs in parts of a PNG that nothing needs: black pictures of 4x4."""


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(118 - 1) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


HEADERS = {
    "huge": "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 4, 4), }",
    "large": "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 100000, 100000), }",
    "object": "{'descr': '|O', 'fortran_order': False, 'shape': (1, 4, 4), }",
    "brackets": "(" * 3000,
    "minus": "-" * 5000 + "1",
    "negative": "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4, 4), }",
    "nothing": "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 0, 4), }",
    "code": "__import__('os').getcwd()",
    "no such number": "{'descr': '<i3', 'fortran_order': False, 'shape': (1, 4, 4), }",
    "texts of nothing": "{'descr': '<U0', 'fortran_order': False, 'shape': (9, 4, 4), }",
}


def special(folder: Path, kind: str) -> Path:
    path = folder / "special"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            here = Path.cwd()
            os.chdir(folder)  # names of sockets are short
            try:
                listener.bind("special")
            finally:
                os.chdir(here)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path
