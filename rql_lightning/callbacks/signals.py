"""Handling of Ctrl-C and SIGTERM: training finishes its batch and saves; everything else stops at once."""

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
    """Exit because of a signal, with a shell's exit code for it: 130 for SIGINT (Ctrl-C), 143 for SIGTERM.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


class Handlers:
    """Handlers of this process for both signals, until :meth:`restore`.

    Outside the main thread, handlers are not installed, because Python does not support it.

    Args:
        handle: Function called in the main thread with the signal's number.
    """

    def __init__(self, handle: Callable[[int], None]) -> None:
        self._handle = handle
        self._previous: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                previous = signal.signal(number, lambda received, _: self._handle(received))
                self._previous.setdefault(number, previous)

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, previous in self._previous.items():
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)
        self._previous = {}


def stop(number: int) -> None:
    """Stop at once.

    Raises:
        Stopped: Always.
    """
    raise Stopped(number)


@contextmanager
def prompt_signals() -> Iterator[None]:
    """Make both signals stop the program at once within this context."""
    handlers = Handlers(stop)
    handlers.install()
    try:
        yield
    finally:
        handlers.restore()


class StopRequest:
    """A request by a signal to stop at the next opportunity; a second signal stops at once.

    Attributes:
        received: First signal received, or ``None``.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._handlers = Handlers(self._receive)

    def install(self) -> None:
        """Install handlers that record a signal as a request."""
        self.received = None
        self._handlers.install()

    def restore(self) -> None:
        """Restore the previous handlers."""
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
