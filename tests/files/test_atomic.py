"""Files and folders appear whole or not at all, whatever fails on the way."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit.processes import IMPORTS

from pysdk.errors import OptionTypeError, OutputError
from pysdk.files.atomic import atomic_file, atomic_folder, check_target, make_folder


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with atomic_file(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_file_has_the_usual_permissions(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as file:
        file.write(b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("failure", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_file_keeps_the_old_content_when_the_block_fails(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def write() -> None:
        with atomic_file(target) as file:
            file.write(b"half")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "there is no permission to write there"),
        (errno.EIO, "input/output error"),
    ],
)
@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_os_errors_become_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, code: int, reason: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    target = tmp_path / "a"
    target.write_bytes(b"old")
    monkeypatch.setattr(where, fail)
    with pytest.raises(OutputError) as caught, atomic_file(target) as file:
        file.write(b"new")
    monkeypatch.undo()
    assert str(caught.value) == f"cannot write {str(target)!r}: {reason}"
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_names_that_are_none(path: str) -> None:
    with pytest.raises(OutputError, match="not a file name"), atomic_file(path):
        pass


def test_missing_folder_folder_device_long_name_and_wrong_type(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"there is no folder .*missing', create it first"):
        atomic_file(tmp_path / "missing" / "a").__enter__()
    with pytest.raises(OutputError, match="it is a folder, expected a file"):
        atomic_file(tmp_path).__enter__()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="it is a device, expected a file"):
        atomic_file(tmp_path / "pipe").__enter__()
    with pytest.raises(OutputError, match="the name is too long"), atomic_file(tmp_path / ("n" * 300)):
        pass
    with pytest.raises(OptionTypeError, match="got int"):
        atomic_file(3).__enter__()  # type: ignore[arg-type]
    assert names(tmp_path) == ["pipe"]


def test_a_target_is_checked_without_touching_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "old")
    check_target(tmp_path / "new")
    check_target(tmp_path / "empty", folder=True)
    for path, folder, message in (
        (tmp_path / "missing" / "a", False, "there is no folder .*missing', create it first"),
        (tmp_path / "full", False, "it is a folder, expected a file"),
        (tmp_path / "full", True, "it exists already, choose a new name"),
        (tmp_path / "old", True, "it exists already"),
        (tmp_path / "old" / "a", False, "there is no folder"),
        (tmp_path / ("n" * 300), False, "the name is too long"),
        ("", False, "not a file name"),
    ):
        with pytest.raises(OutputError, match=message):
            check_target(path, folder=folder)
    monkeypatch.setattr(os, "access", lambda *_: False)  # a superuser may write anywhere
    with pytest.raises(OutputError, match="is not writable"):
        check_target(tmp_path / "new")
    assert names(tmp_path) == ["empty", "full", "old"]


def test_a_folder_is_made_or_refused(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        make_folder(tmp_path / "file")
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        make_folder(tmp_path / "file" / "a")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with atomic_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "1").write_bytes(b"1")
        assert not target.exists()
    assert (target / "sub" / "1").read_bytes() == b"1"
    assert names(tmp_path) == ["a"]


def test_folder_may_be_an_empty_one_only(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.mkdir()
    with atomic_folder(target) as folder:
        (folder / "1").write_bytes(b"1")
    with pytest.raises(OutputError, match="it exists already, choose a new name"), atomic_folder(target):
        pass
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OutputError, match="it exists already"), atomic_folder(tmp_path / "file"):
        pass
    assert names(tmp_path) == ["a", "file"]
    assert names(target) == ["1"]


def test_folder_never_was_when_the_block_fails(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "1").write_bytes(b"1")
            raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OutputError, match="the disk is full"):
        write()
    assert names(tmp_path) == []


FULL = """
import resource, signal, sys
from pysdk.files.atomic import atomic_file
from pysdk.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    with atomic_file(sys.argv[1]) as file:
        file.write(bytes(100_000))
except OutputError as error:
    print(error)
"""


def test_a_write_that_really_fails(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    command = [sys.executable, "-c", FULL, str(target)]
    environment = os.environ | IMPORTS
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"cannot write {str(target)!r}: it grew larger than a file may be here\n"
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]
