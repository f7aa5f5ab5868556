"""Ctrl-C, SIGTERM and SIGUSR1 (a batch system's warning of its time limit) end a training after the current step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

from unscene.distributed.processes import SIGNALS, is_first_process


class Interruption:
    """A context in which the first signal only sets `asked`; the second one raises KeyboardInterrupt.

    Attributes:
        asked: whether the training should end after the current step.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interruption:
        self.in_main_thread = threading.current_thread() is threading.main_thread()  # only it may handle signals
        if self.in_main_thread:
            self.previous = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.in_main_thread:
            for number, handler in self.previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if is_first_process():  # os.write, because the signal may have interrupted a print
            os.write(2, b"\nStopping after this step, with a checkpoint; once more stops at once.\n")
