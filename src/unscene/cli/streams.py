"""Standard output and error that never fail: text that cannot be printed is dropped, and the command continues."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class LastingStream:
    """A text stream whose writing never fails.

    After the first failure (the reader of a pipe has left, the terminal is gone, the disk is full) all text is dropped.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None  # the first failure, unless the reader of a pipe has left

    def write(self, text: str) -> int:
        """Write a text. Control characters, which a file's name may hold, and what the encoding lacks are escaped."""
        try:
            return self._stream.write(printable(text))
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if error.errno != errno.EPIPE:
            self.lost = self.lost or error
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())  # Python's own last flush goes there too
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Replace `sys.stdout` and `sys.stderr` by lasting streams, and yield the former.

    A closed stream (`>&-`) is opened to the null device, before another file gets its number. The hang-up signal of a
    terminal that closes is ignored.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    with suppress(AttributeError, ValueError):  # Windows has no such signal; only the main thread may set one
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = sys.stdout, sys.stderr
    out, err = (LastingStream(stream or open(os.devnull, "w", encoding="utf-8")) for stream in before)  # noqa: SIM115, PTH123
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def printable(text: str) -> str:
    """Return a text with its control characters escaped, except line ends, tabs and the return of a progress bar."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\r\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )
