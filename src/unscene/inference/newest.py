"""The newest of a stream of values: a slow reader skips some and delays nobody, and memory holds one."""

from __future__ import annotations

from threading import Condition
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Newest(Generic[Value]):
    """One thread puts values, others wait for the next one. Values are numbered from 1."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._number, self._closed = 0, False
        self._value: Value | None = None

    def put(self, value: Value) -> None:
        """Replace the value."""
        with self._changed:
            self._value, self._number = value, self._number + 1
            self._changed.notify_all()

    def close(self) -> None:
        """No value follows: whoever waits gets None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def after(self, number: int) -> tuple[int, Value] | None:
        """Wait for a value with a number above `number`; return the newest one and its number. None: none follows."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number or self._closed)
            if self._value is None or self._number <= number:
                return None
            return self._number, self._value
