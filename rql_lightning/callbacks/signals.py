"""Ctrl-C and SIGTERM: training finishes its batch and saves, everything else stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from rql_lightning.reporting.console import tell

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """A signal ended the work; the exit code is a shell's for it: 130 for SIGINT (Ctrl-C), 143 for SIGTERM.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


class Handlers:
    """Handlers of this process for both signals, until :meth:`restore`.

    Signals of a process other than the main thread's are left alone: Python delivers none there.

    Args:
        handle: Called with the signal's number, between two of the main thread's instructions.
    """

    def __init__(self, handle: Callable[[int], None]) -> None:
        self._handle = handle
        self._previous: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                previous = signal.signal(number, lambda received, _: self._handle(received))
                self._previous.setdefault(number, previous)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, previous in self._previous.items():
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)
        self._previous = {}


def stop(number: int) -> None:
    """Stop at once.

    Raises:
        Stopped: always.
    """
    raise Stopped(number)


@contextmanager
def prompt_signals() -> Iterator[None]:
    """Within this context both signals stop the work at once, whatever they did before."""
    handlers = Handlers(stop)
    handlers.install()
    try:
        yield
    finally:
        handlers.restore()


class StopRequest:
    """A signal's request to stop at the next opportunity; a second signal stops at once.

    Attributes:
        received: The first signal that came, or ``None``.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._handlers = Handlers(self._receive)

    def install(self) -> None:
        """From here on a signal is a request."""
        self.received = None
        self._handlers.install()

    def restore(self) -> None:
        """Give the signals back."""
        self._handlers.restore()

    def _receive(self, number: int) -> None:
        if self.received is not None:
            raise Stopped(number)
        self.received = number
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        _tell(f"\nStopping after this training batch, with a checkpoint. {name} again stops at once.")


@rank_zero_only
def _tell(message: str) -> None:
    tell(message)
