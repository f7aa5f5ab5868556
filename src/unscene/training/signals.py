"""Ctrl-C, SIGTERM, or SIGUSR1 (as batch systems warn of a time limit) ends a training in order: after the step that
runs, with a checkpoint to go on from."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

from unscene.distributed.processes import SIGNALS, is_first_process


class Interruption:
    """While it is entered, a first signal only sets `asked`; a second one raises KeyboardInterrupt there and then.

    Attributes:
        asked: whether the training should end after the step that runs.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interruption:
        self.before = {number: signal.getsignal(number) for number in SIGNALS}
        self.catch()
        return self

    def catch(self) -> None:
        """Catch the signals, again if need be: Lightning puts a handler of its own over that of SIGTERM."""
        if threading.current_thread() is threading.main_thread():  # signals go to it alone
            for number in SIGNALS:
                signal.signal(number, self._ask)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self.before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if is_first_process():
            os.write(
                2, b"\nStopping after this step, with a checkpoint; once more stops at once.\n"
            )  # print may be running
