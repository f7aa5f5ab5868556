"""interruption: the first signal asks, the second one ends, and afterwards the signals are as before."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress

import pytest

from unscene.training.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number, capfd):
    with Interruption() as interruption:
        assert not interruption.asked
        signal.raise_signal(number)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert "Stopping after this step" in capfd.readouterr().err


def test_the_signals_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with suppress(ValueError), Interruption():
        assert signal.getsignal(signal.SIGINT) != before[0]
        raise ValueError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_handler_is_replaced():
    with Interruption() as interruption:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interruption.catch()
        signal.raise_signal(signal.SIGTERM)
        assert interruption.asked


def test_a_thread_leaves_the_signals_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def inside() -> None:
        with Interruption() as interruption:
            seen.append((interruption.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
    assert signal.getsignal(signal.SIGINT) == before
