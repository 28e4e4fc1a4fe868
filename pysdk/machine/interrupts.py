"""Ctrl-C while foreign code runs: calls that can be left, and what it made of the interrupt."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_WAIT = 0.02
"""Seconds without a look at signals."""


def interruptible(work: Callable[[], _Result], cancel: Callable[[], object]) -> _Result:
    """`work()` on a thread of its own, so that Ctrl-C is seen meanwhile.

    Outside of the main thread, where Python delivers no signals, it is called as it is.

    Args:
        work: releases the GIL while it takes long.
        cancel: makes it return, or raise, soon; called once when a signal's handler raises, which then comes out here.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    outcome: list[tuple[bool, Any]] = []
    ended = threading.Event()  # Thread.join, when it is interrupted, takes the thread for ended

    def run() -> None:
        try:
            outcome.append((True, work()))
        except BaseException as error:  # raised below, on the caller's thread
            outcome.append((False, error))
        finally:
            ended.set()

    threading.Thread(target=run, name="pysdk foreign call", daemon=True).start()
    try:
        while not ended.wait(_WAIT):
            pass
    except BaseException:
        with _deaf():  # a second Ctrl-C does not leave it behind
            cancel()
            ended.wait()
        raise
    done, result = outcome[0]
    if not done:
        raise result
    returned: _Result = result
    return returned


@contextmanager
def _deaf() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Noted:
    """What SIGINT's handler raised, whatever became of it."""

    error: BaseException | None = None

    def renew(self) -> None:
        """Raise it again, if there was one."""
        if self.error is not None:
            raise self.error from None


@contextmanager
def noted_interrupts() -> Iterator[Noted]:
    """Note what the handler of SIGINT raises inside: foreign code turns it into errors of its own, or drops it.

    The handler itself stays the caller's. Outside of the main thread nothing is noted.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield Noted()
        return
    noted = Noted()

    def note(number: int, frame: FrameType | None) -> None:
        try:
            before(number, frame)
        except BaseException as error:
            noted.error = error
            raise

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)


def ending() -> None:
    """Nothing is left to be done: from now on Ctrl-C changes neither what is written nor the exit code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.unraisablehook = _without_interrupts


def _without_interrupts(unraisable: Any) -> None:
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
