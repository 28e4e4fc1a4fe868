"""What killed writers leave is removed by the next one; what a living writer holds never is."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.processes import IMPORTS

from pysdk.files.atomic import atomic_file, atomic_folder
from pysdk.files.leftovers import DAY, machine

WRITER = """
import sys, time
from pathlib import Path
from pysdk.files.atomic import atomic_file, atomic_folder
target = Path(sys.argv[1])
if sys.argv[2] == "folder":
    with atomic_folder(target) as part:
        (part / "half").write_bytes(bytes(1000))
        print("writing", flush=True)
        sys.stdin.readline()
else:
    with atomic_file(target) as file:
        file.write(bytes(100_000))
        print("writing", flush=True)
        sys.stdin.readline()
"""

OLD, ELSEWHERE = ".pysdk-0123456789ab.part", ".pysdk-00000000-0123456789ab.part"


def parts(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".part"))


@contextmanager
def writer(target: Path, kind: str) -> Iterator["subprocess.Popen[str]"]:
    """A process in the middle of writing; a line lets it finish."""
    environment = os.environ | IMPORTS
    command = [sys.executable, "-c", WRITER, str(target), kind]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        try:
            yield process
        finally:
            process.kill()


def write(folder: Path, name: str = "mine") -> None:
    with atomic_file(folder / name) as file:
        file.write(b"x")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_of_a_living_one(tmp_path: Path, kind: str) -> None:
    with writer(tmp_path / "alive", kind) as living:
        (held,) = parts(tmp_path)
        with writer(tmp_path / "dead", kind) as killed:
            assert len(parts(tmp_path)) == 2
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        assert len(parts(tmp_path)) == 2
        write(tmp_path)
        assert parts(tmp_path) == [held]
        living.communicate("\n", timeout=60)
        assert living.returncode == 0
    assert (tmp_path / "alive").exists()
    assert not (tmp_path / "dead").exists()
    assert parts(tmp_path) == []


def test_a_folder_removes_leftovers_too(tmp_path: Path) -> None:
    (tmp_path / f".pysdk-{machine()}-0123456789ab.part").write_bytes(b"half")
    with atomic_folder(tmp_path / "a"):
        assert len(parts(tmp_path)) == 1
    assert parts(tmp_path) == []


@pytest.mark.parametrize("name", [OLD, ELSEWHERE])
def test_what_another_machine_or_an_older_version_left_is_removed_after_a_day(tmp_path: Path, name: str) -> None:
    part = tmp_path / name
    part.write_bytes(b"half")
    write(tmp_path)
    assert parts(tmp_path) == [name]
    os.utime(part, (time.time() - DAY - 60,) * 2)
    write(tmp_path)
    assert parts(tmp_path) == []


def test_what_is_not_ours_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = [".pysdk-notes.part", "a.part", f".pysdk-{machine()}-0123456789abc.part", f"{OLD}.bak"]
    for name in stays:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"x")
    link, pipe = f".pysdk-{machine()}-000000000001.part", f".pysdk-{machine()}-000000000002.part"
    (tmp_path / link).symlink_to("kept")
    os.mkfifo(tmp_path / pipe)
    write(tmp_path)
    assert {*stays, link, pipe, "kept"} <= {entry.name for entry in tmp_path.iterdir()}
    assert (tmp_path / "kept" / "file").exists()
    (tmp_path / f".pysdk-{machine()}-000000000003.part").write_bytes(b"x")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # another user's
    write(tmp_path)
    assert f".pysdk-{machine()}-000000000003.part" in parts(tmp_path)


def test_without_locks_files_are_written_and_none_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / f".pysdk-{machine()}-0123456789ab.part"
    part.write_bytes(b"half")

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    write(tmp_path)
    assert part.exists()
    assert (tmp_path / "mine").exists()


def test_many_writers_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # faster, so that they meet more often
    failed: list[BaseException] = []

    def many(thread: int) -> None:
        try:
            for index in range(60):
                write(tmp_path, f"{thread}-{index}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=many, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(list(tmp_path.iterdir())) == 480
