"""A file being written carries a lock, which tells it from what a killed process left behind.

A part is called `.pysdk-MACHINE-RANDOM.part` and is held with flock while it is written. A lock dies with its process:
a part whose lock can be taken belongs to nobody. Locks are sure within one machine; on a folder that several share they
are as good as its file system, so what another machine left, or this one before it was started again, is removed only
when it has not changed for a day. Where there are no locks (some network folders) nothing is removed.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

DAY = 24 * 3600
"""Seconds."""

_PART = re.compile(r"\.pysdk-(?:([0-9a-f]{8})-)?[0-9a-f]{12}\.part")
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK
_TRIES = 100


class Part:
    """A new file or folder beside a target, locked by this process until it is let go.

    Args:
        folder: where it is made.
        is_folder: a folder instead of a file.

    Attributes:
        path: its name.
        descriptor: the file, open for writing; whoever takes it closes it. None for a folder.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path, *, is_folder: bool = False) -> None:
        for _ in range(_TRIES):  # another writer may remove a new part before it is locked
            self.path = folder / f".pysdk-{machine()}-{secrets.token_hex(6)}.part"
            self.descriptor = None if is_folder else _make_file(self.path)
            if is_folder:
                self.path.mkdir()
            self._lock = _open_again(self.path, self.descriptor)
            if (self._lock is None or _locked(self._lock) is not False) and os.path.lexists(self.path):
                return
            self.let_go()
            if self.descriptor is not None:
                os.close(self.descriptor)
        raise FileNotFoundError(errno.ENOENT, "every new file vanishes")

    def let_go(self) -> None:
        """Give up the lock: the part has its final name, or is gone."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def remove(self) -> None:
        """Remove what was written, if it is still there."""
        with suppress(OSError):
            shutil.rmtree(self.path) if self.path.is_dir() else self.path.unlink(missing_ok=True)


@cache
def machine() -> str:
    """Eight digits for this machine since it started, the same in all its containers."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        name = os.uname().nodename
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def remove_leftovers(folder: Path) -> None:
    """Remove the parts in a folder that belong to nobody; whatever cannot be judged or removed stays."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _PART.fullmatch(entry.name)
            if found is not None:
                with suppress(OSError):
                    _remove_if_dead(Path(entry.path), here=found[1] == machine())


def _remove_if_dead(path: Path, *, here: bool) -> None:
    kind = path.lstat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        return
    # network file systems lock only what is open for writing
    lock = os.open(path, (os.O_RDWR if stat.S_ISREG(kind) else os.O_RDONLY) | _FLAGS)
    try:
        found = os.fstat(lock)
        foreign = found.st_uid != os.geteuid() or not os.path.samestat(found, path.lstat())
        recent = not here and time.time() - found.st_mtime < DAY
        if foreign or recent or not _locked(lock) or not os.path.lexists(path):
            return
        shutil.rmtree(path) if stat.S_ISDIR(kind) else path.unlink()
    finally:
        os.close(lock)


def _make_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _open_again(path: Path, descriptor: int | None) -> int | None:
    """A descriptor that keeps the lock while the first one is closed; None if there is no file."""
    if descriptor is not None:
        return os.dup(descriptor)
    with suppress(OSError):
        return os.open(path, os.O_RDONLY)
    return None


def _locked(descriptor: int) -> bool | None:
    """Whether the lock is ours now; None if this file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
