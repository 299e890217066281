"""Ctrl-C and SIGTERM, as exceptions and as requests."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from rql_lightning.callbacks.signals import SIGNALS, Stopped, StopRequest, prompt_signals


@pytest.fixture(autouse=True)
def handlers_are_given_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_prompt_signals_stop_at_once_with_a_shells_exit_code(number, code):
    with pytest.raises(Stopped) as stopped, prompt_signals():
        os.kill(os.getpid(), number)
        raise AssertionError("it went on")
    assert stopped.value.code == code and stopped.value.signal == number


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_waits_and_a_second_signal_does_not(number, capsys):
    request = StopRequest()
    request.install()
    try:
        os.kill(os.getpid(), number)
        assert request.received == number
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        assert f"Stopping after this training batch, with a checkpoint. {name} again" in capsys.readouterr().err
        with pytest.raises(Stopped):
            os.kill(os.getpid(), number)
    finally:
        request.restore()


def test_prompt_within_a_request_and_the_request_afterwards():
    request = StopRequest()
    request.install()
    try:
        with pytest.raises(Stopped), prompt_signals():
            os.kill(os.getpid(), signal.SIGTERM)
        assert request.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.received == signal.SIGTERM
    finally:
        request.restore()


def test_threads_leave_signals_alone():
    def work() -> list[object]:
        request = StopRequest()
        request.install()
        with prompt_signals():
            during = [signal.getsignal(number) for number in SIGNALS]
            request.restore()
        return during

    before = [signal.getsignal(number) for number in SIGNALS]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == before  # raises what the thread raised
