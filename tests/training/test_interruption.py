"""train.Interruption: the first signal asks, the second one ends, and afterwards the handlers are as before."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress

import pytest

from unscene.distributed.processes import SIGNALS, leave_to_parent
from unscene.training.train import Interruption


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_ends(number, capfd):
    with Interruption() as interruption:
        assert not interruption.asked
        signal.raise_signal(number)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert "Stopping after this step" in capfd.readouterr().err


def test_signal_handlers_are_restored():
    before = [signal.getsignal(number) for number in SIGNALS]
    with suppress(ValueError), Interruption():
        assert signal.getsignal(signal.SIGINT) != before[0]
        raise ValueError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_thread_changes_no_signal_handler():
    before, seen = signal.getsignal(signal.SIGINT), []

    def inside() -> None:
        with Interruption() as interruption:
            seen.append((interruption.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
    assert signal.getsignal(signal.SIGINT) == before


def test_warning_of_a_batch_system_is_among_the_signals():
    assert {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGINT)} == set(SIGNALS)


def test_loader_process_ignores_all_signals_but_sigterm():
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with Interruption() as interruption:
            leave_to_parent(0)
            for number in set(SIGNALS) - {signal.SIGTERM}:
                signal.raise_signal(number)
            assert not interruption.asked
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
