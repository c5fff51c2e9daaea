"""What a program prints when nobody takes it: a closed pipe or terminal, a full disk. No work ends for that."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from difix3d.errors import UserError


class LenientStream:
    """A text stream whose writing does not fail: after the first failure, what is printed is dropped.

    Attributes:
        error: that failure.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self.error: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def check(self) -> None:
        """Looks whether all was printed, or nobody wanted it any more (``| head``).

        Raises:
            UserError: it could not be printed for another reason.
        """
        self.flush()
        if self.error is not None and getattr(self.error, "errno", None) != errno.EPIPE:
            raise UserError(
                f"What was found could not be printed ({self.error})", "", "Send the output to a place that has room"
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, action: Any, *args: Any) -> None:
        if self.error is not None:
            return
        try:
            action(*args)
        except UnicodeError:
            raise
        except (OSError, ValueError) as error:  # Python's own "I/O operation on closed file" is a ValueError
            self.error = error
            with suppress(OSError, ValueError):  # what is buffered would fail again when the program ends
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)


@contextmanager
def lenient_output() -> Iterator[LenientStream]:
    """Within, ``sys.stdout``, which it yields, and ``sys.stderr`` are lenient, also if they are closed."""
    before = sys.stdout, sys.stderr
    # Python has None for what was closed; the next file that is opened would take its number, and what libraries print
    out, err = (LenientStream(open(os.devnull, "w") if stream is None else stream) for stream in before)  # noqa: SIM115
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
