"""Ctrl-C before a command runs: the process ends with one line, as nothing is half done. Imports next to nothing."""

import os
import signal

MESSAGE = "interrupted"
CODE = 130
"""The exit code of a process that Ctrl-C ended."""


def leave_at_once() -> None:
    """Until `as_usual`, Ctrl-C ends the process with one line: for imports, which leave nothing half done."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def as_usual() -> None:
    """Undo `leave_at_once`."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: object) -> None:
    os.write(2, f"{MESSAGE}\n".encode())
    os._exit(CODE)
