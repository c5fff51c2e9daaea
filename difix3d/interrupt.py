"""Being asked to stop: by Ctrl-C, a cluster's time limit, ``docker stop``, or a terminal that is closed."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""All of them mean the same; Windows has no SIGHUP."""


@contextmanager
def interruptible() -> Iterator[Callable[[], int]]:
    """Within, a signal that asks for an end is only noted, for a loop to end between two steps.

    What is yielded tells the signal's number, 0 while there was none. A second Ctrl-C ends the program; SIGTERM and
    SIGHUP, which shells and terminals send more than once, do not. What was ignored before (``nohup``) stays ignored.
    """
    noted: list[int] = []
    before: dict[int, Any] = {}

    def tell() -> int:
        return noted[0] if noted else 0

    def note(number: int, _frame: object) -> None:
        noted.append(number)
        if number == signal.SIGINT:
            signal.signal(number, before[number])

    if threading.current_thread() is not threading.main_thread():
        yield tell  # only the main thread may handle signals
        return
    try:
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
        yield tell
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def unwinding() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise ``SystemExit``, as Ctrl-C raises ``KeyboardInterrupt``: what is half done is put
    away. What was ignored before, or is handled already, stays so. Within another it takes the signals again, which a
    library may have taken for itself."""
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) in (signal.SIG_DFL, _leave):
                    before[number] = signal.signal(number, _leave)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)
