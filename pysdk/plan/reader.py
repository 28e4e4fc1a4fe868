"""Reads and checks plans: one file with the network, its schedule and its compiled engines."""

import hashlib
import mmap
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import msgspec

from pysdk.errors import OptionError, OptionTypeError, PlanError, PlanNotFoundError
from pysdk.plan.container import Entry, read_entries
from pysdk.plan.manifest import (
    MANIFEST_NAME,
    NETWORK_DATA_NAME,
    Manifest,
    parse_manifest,
)

_REBUILD = "build it again with `pysdk build`"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_CHUNK = 1 << 22
_SECONDS = 0.005  # a reader takes no more memory in that time than a few chunks


class Plan:
    """An open plan: `manifest`, checked, and its members, mapped from the file without a copy.

    Opening reads only `manifest.json`; a member's checksum is verified when it is first asked for. Nothing in a plan is
    executed or unpickled. Views stay valid after `close()`, which only gives up the plan's own hold on the file.
    Replacing the file (as every writer of pysdk does) leaves an open plan alone; truncating it in place does not.
    """

    path: Path
    manifest: Manifest
    size: int
    """Bytes of the whole file."""

    def __init__(self, path: Path, manifest: Manifest, file: mmap.mmap, entries: list[Entry]) -> None:
        """Use `Plan.open`."""
        self.path = path
        self.manifest = manifest
        self.size = len(file)
        self._file: mmap.mmap | None = file
        self._entries = {entry.name: entry for entry in entries}
        self._verified: set[str] = set()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Plan":
        """Open and check a plan.

        Raises:
            PlanNotFoundError: there is no file at `path`.
            PlanError: it is no plan, damaged, of another format version, or cannot be read.
            OptionTypeError: `path` is neither a str nor a Path.
        """
        if not isinstance(path, str | os.PathLike):
            raise OptionTypeError(f"the path of a plan is a str or a Path, got {type(path).__name__}")
        where = Path(path)
        file = _map(where)
        with _naming(where), memoryview(file) as view:
            entries = read_entries(view)
            head = entries[0]
            data = bytes(view[head.data : head.data + head.size])
            if zlib.crc32(data) != head.crc:
                raise PlanError(f"is damaged or edited: the checksum of {MANIFEST_NAME} does not fit")
            manifest = parse_manifest(data)
            found = {entry.name: entry.size for entry in entries[1:]}
            listed = {name: member.size for name, member in manifest.members.items()}
            for name in sorted(found.keys() | listed.keys()):
                if found.get(name) != listed.get(name):
                    raise PlanError(
                        f"is damaged or edited: {name!r} has {_size(listed.get(name))} in the manifest "
                        f"and {_size(found.get(name))} in the file"
                    )
        return cls(where, manifest, file, entries)

    def member(self, name: str) -> memoryview:
        """Bytes of a member: read-only, mapped, its address a multiple of 64.

        Raises:
            OptionError: the plan has no such member.
            PlanError: its SHA-256 is not the manifest's, or the plan is closed.
        """
        view = self._view(name)
        if name not in self._verified:
            try:
                self._check(name, view)
            except PlanError:
                view.release()
                raise
        return view

    @contextmanager
    def verifying(self, names: Sequence[str]) -> Iterator[list[memoryview]]:
        """Members as `member` returns them; another thread verifies their checksums while the body reads them.

        Only for a body that takes any bytes without harm, e.g. plain numbers. The file's memory goes back to the system
        meanwhile; what is read again comes from the file.

        Raises:
            OptionError, PlanError: as `member`; a wrong checksum when the body ends, whatever it raised itself.
        """
        views = [self._view(name) for name in names]
        failures: list[Exception] = []
        done, dropped, ended = threading.Event(), threading.Event(), threading.Event()

        def check() -> None:
            try:
                for name, view in zip(names, views, strict=True):
                    if name not in self._verified:
                        self._check(name, view, dropped)
            except Exception as error:  # raised below, on the caller's thread
                failures.append(error)
            while not done.wait(_SECONDS):
                self._give_back()
            ended.set()

        threading.Thread(target=check, name="pysdk checksums").start()
        try:
            try:
                yield views
            except Exception:
                done.set()
                ended.wait()  # a wrong checksum may be the reason
                raise
            done.set()
            ended.wait()
        finally:
            done.set()
            dropped.set()  # Ctrl-C does not wait for gigabytes
            ended.wait()
            self._give_back()
            if failures:
                raise failures[0] from None

    def unverified(self, name: str) -> memoryview:
        """As `member`, without verifying its checksum: for callers that need only the size."""
        return self._view(name)

    def _view(self, name: str) -> memoryview:
        if self._file is None:
            raise PlanError(f"plan {str(self.path)!r} is closed; open it again")
        if name not in self.manifest.members:
            raise OptionError(f"plan {str(self.path)!r} has no {name!r}, it has {sorted(self.manifest.members)}")
        entry = self._entries[name]
        return memoryview(self._file)[entry.data : entry.data + entry.size]

    def _check(self, name: str, view: memoryview, dropped: threading.Event | None = None) -> None:
        digest = hashlib.sha256()
        for start in range(0, len(view), _CHUNK):
            if dropped is not None and dropped.is_set():
                return
            digest.update(view[start : start + _CHUNK])
            self._give_back()  # or the whole file would be in memory beside what is made of it
        expected, found = self.manifest.members[name].sha256, digest.hexdigest()
        if found != expected:
            raise PlanError(
                f"plan {str(self.path)!r} is damaged or edited: {name!r} has SHA-256 {found[:12]}, "
                f"the manifest says {expected[:12]}; {_REBUILD}"
            )
        self._verified.add(name)

    def _give_back(self) -> None:
        """Lets go of the file's pages in this process's memory; reading them again brings them back."""
        file = self._file
        if file is not None and len(file) > _CHUNK and hasattr(mmap, "MADV_DONTNEED"):
            file.madvise(mmap.MADV_DONTNEED)

    def verify(self) -> None:
        """Verify the checksum of every member now. PlanError names the first that does not fit."""
        for name in sorted(self.manifest.members):
            self.member(name).release()

    def describe(self) -> dict[str, Any]:
        """The manifest as plain JSON values, the betas summed up, with the path and the file's size.

        Under "costs" is a `pysdk.engines.cost.Cost` of every network that runs on the CPU.
        """
        from pysdk.engines.cost import costs  # the one thing here that engines know

        plain: dict[str, Any] = msgspec.to_builtins(self.manifest)
        betas, edm = plain["schedule"].pop("betas"), plain["schedule"].pop("edm")
        plain["schedule"] |= edm or {"num_timesteps": len(betas), "first_beta": betas[0], "last_beta": betas[-1]}
        return {"path": str(self.path), "size": self.size, **plain, "costs": msgspec.to_builtins(costs(self))}

    def summary(self) -> str:
        """The part of `describe` that a person wants to know, one line each, for a terminal."""
        model, schedule, defaults = self.manifest.model, self.manifest.schedule, self.manifest.defaults
        channels, height, width = model.shape
        classes = f", {model.num_classes} classes" if model.num_classes else ""
        guided = "" if model.null_label is None else ", guidance"
        steps = f", {defaults.steps} steps" if defaults.steps else ""
        parameters = f", {model.parameters:,} parameters" if model.parameters is not None else ""
        lines = [
            f"plan      {self.path} ({self.size:,} bytes, pysdk {self.manifest.pysdk_version}, "
            f"numerics {self.manifest.numerics_version})",
            f"model     {model.name}: {channels}x{height}x{width}{classes}{guided}{parameters}",
            f"output    {model.prediction_type}, variance {model.variance_type}",
            f"schedule  {schedule.summary()}",
            f"default   {defaults.solver}{steps}",
        ]
        if NETWORK_DATA_NAME in self.manifest.members:
            lines.append(f"weights   {self.manifest.members[NETWORK_DATA_NAME].size:,} bytes in {NETWORK_DATA_NAME}")
        classifier = self.manifest.classifier
        if classifier is not None:
            lines.append(f"guidance  classifier {classifier.name}, {classifier.num_classes} classes")
        for engine in self.manifest.engines:
            speed = f", {engine.seconds_per_step * 1e3:.3g} ms per step" if engine.seconds_per_step else ""
            needs = "".join(f", {key} {value}" for key, value in engine.requires.items())
            taken = " ({} to {})".format(*engine.batches) if engine.batches else ""
            tuned = ", tuned" if engine.tuned else ""
            lines.append(
                f"engine    {engine.kind} {engine.precision}, batch {engine.batch_size}{taken}{speed}{tuned}{needs}"
            )
            lines += [f"          {note}" for note in engine.notes.splitlines()]
        return "\n".join(lines)

    def close(self) -> None:
        """Give up the file; the mapping itself goes when the last view of it does."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(BufferError):  # views are alive and keep the mapping
                file.close()

    def __enter__(self) -> "Plan":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        """OptionTypeError: what is mapped cannot be copied into another process."""
        raise OptionTypeError(f"plan {str(self.path)!r} cannot be pickled or copied; pass its path and open it there")

    def __repr__(self) -> str:
        engines = ", ".join(f"{engine.kind} {engine.precision}" for engine in self.manifest.engines)
        return f"Plan({str(self.path)!r}: {self.manifest.model.name}, engines: {engines or 'none'})"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Complete the clauses of the checks inside to one sentence about `path`."""
    try:
        yield
    except PlanError as error:
        raise PlanError(f"plan {str(path)!r} {error}; {_REBUILD}") from None


def _map(path: Path) -> mmap.mmap:
    """The file, mapped for reading."""
    try:
        if path.is_dir():
            raise PlanError(f"plan {str(path)!r} is a folder, expected a file; give the path of the .plan file in it")
        if not path.exists():
            raise PlanNotFoundError(f"there is no plan at {str(path)!r}; build one with `pysdk build`")
        if not path.is_file():  # opening a pipe would wait forever
            raise PlanError(f"plan {str(path)!r} is a pipe or a device, expected a file; copy it to a file first")
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise PlanError(f"plan {str(path)!r} is a Git LFS pointer, not the file; fetch it with `git lfs pull`")
            if os.fstat(file.fileno()).st_size == 0:
                raise PlanError(f"plan {str(path)!r} is empty; {_REBUILD}")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if isinstance(error, PlanError):
            raise
        reason = error.strerror or error
        raise PlanError(f"plan {str(path)!r} cannot be read ({reason}); check its permissions") from error


def _size(size: int | None) -> str:
    return "no entry" if size is None else f"{size} bytes"
