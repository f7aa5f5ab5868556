"""The command line's entry: words become a command's arguments, and what happens becomes an exit status."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import re
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from unscene import __version__
from unscene.cli.arguments import parse, split_settings
from unscene.cli.commands import COMMANDS
from unscene.cli.streams import lasting_streams
from unscene.errors import RecipeError, UnsceneError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0 if it did what was asked, 1 after an error, 130 after Ctrl-C.

    SIGTERM is as Ctrl-C. A wrong word on the command line ends the process with 2. A reader who leaves
    (`unscene recipes | head`) ends the printing, not the work.
    """
    set_process_up()
    if logging.lastResort:  # writes the log to stderr
        logging.lastResort.setFormatter(logging.Formatter("warning: %(message)s"))
    words = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_streams() as streams, sigterm_as_ctrl_c():
        rest, settings = split_settings(words)
        known = parse(rest)
        try:
            COMMANDS[known.command](known, read_changes(settings, known))
        except UnsceneError as error:
            return _failed(f"{type(error).__name__}: {error}")
        except KeyboardInterrupt as interruption:
            return _failed(str(interruption) or "Interrupted; nothing half-written is left behind.", 130)
        except Exception as error:
            if isinstance(error, OSError) and error.filename:  # a name that is too long, a folder without permission
                return _failed(f"{error.filename}: {error.strerror}. Check this path, or name another one.")
            if os.environ.get("UNSCENE_TRACEBACK"):
                raise
            if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):  # PyTorch's
                return _failed(
                    f"MemoryError: the memory is full ({_first_line(error)}). Ask for less at once: smaller images "
                    "(--data.size, --tile), or fewer (--batch-size, --trainer.batch_size)."
                )
            return _failed(_unforeseen(error, words))
        sys.stdout.flush()
        if known.command == "recipes" and streams.lost:  # its work is what it prints
            return _failed(f"standard output cannot be written ({streams.lost.strerror}).")
        return 0


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """A context in which SIGTERM ends the command as Ctrl-C does, so that it cleans up.

    A handler that is there already stays.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def set_process_up() -> None:
    """Set the environment that PyTorch and matplotlib read when they are imported; PyTorch's variables stay if set."""
    os.environ["MPLBACKEND"] = "agg"  # figures go to files only; a notebook's backend may be missing here
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch's large tensors on huge pages
    if "OMP_WAIT_POLICY" not in os.environ:  # spinning threads hold the core that another one needs
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def read_changes(settings: list[tuple[str, str | None]], known: argparse.Namespace) -> dict[str, Any]:
    """The settings by dotted name; a `Word` is read when the type of its setting is known."""
    if not settings:
        return {}
    if not known.takes_settings:
        raise RecipeError(
            f"`unscene {known.command}` takes no settings, so '--{settings[0][0]}' means nothing to it. "
            f"`unscene {known.command} --help` shows what it takes."
        )
    from unscene.settings import Word

    return {name: True if text is None else Word(text) for name, text in settings}


def _failed(message: str, status: int = 1) -> int:
    print(message.replace("\r", "\\r"), file=sys.stderr)
    return status


def _unforeseen(error: Exception, words: Sequence[str]) -> str:
    """Write a full report of an unexpected error; return two lines that name it."""
    report = (
        f"unscene {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"unscene {shlex.join(words)}\n\n{''.join(traceback.format_exception(error))}"
    )
    hint = "No report could be written; UNSCENE_TRACEBACK=1 shows it here."
    with suppress(OSError):
        handle, path = tempfile.mkstemp(".txt", "unscene-report-")
        os.write(handle, report.encode(errors="backslashreplace"))
        os.close(handle)
        hint = f"The full report is in {path}; UNSCENE_TRACEBACK=1 shows it here."
    return f"unscene stopped at an unexpected error: {type(error).__name__}: {_first_line(error)}\n{hint}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200]


if __name__ == "__main__":
    raise SystemExit(main())
