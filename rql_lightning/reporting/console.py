"""Safe console output: characters that a stream cannot encode are replaced, and printing never raises."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from rql_lightning.errors import RqlError

DEGRADE = "rql_lightning.degrade"
"""Name of the codec error handler that :func:`degrade` is registered under."""

_PLAIN = {
    **dict.fromkeys("‐‑‒–—−─━╌╍╴╶╸╺═", "-"),
    **dict.fromkeys("│┃║╎╏▏▎▍▌▋▊▉█", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼┏┓┗┛┣┫┳┻╋┡┩╇╈╉╊╄╃┠┨┯┷╔╗╚╝╠╣╦╩╬", "+"),
    **{"±": "+-", "…": "...", "′": "'", "∞": "inf", "·": "*", "•": "*", "×": "x", "÷": "/", "→": "->", "‖": "||"},
    **{"≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∝": "~", "√": "sqrt", "∑": "sum", "Σ": "sum", "∈": "in"},
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "λ": "lambda", "µ": "u", "μ": "mu"},
    **{"π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "ω": "omega"},
}


def degrade(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: "–" becomes "-", "±" becomes "+-", "é" becomes "e", what is left becomes "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_plain(character) for character in error.object[error.start : error.end]), error.end


def _plain(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    if unicodedata.combining(character):
        return ""
    folded = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return folded or "?"


codecs.register_error(DEGRADE, degrade)


_GONE = (errno.EPIPE, errno.ENOSPC, errno.EBADF)  # a closed pipe, a full disk, a closed file


class SafeStream(io.TextIOBase):
    """A text stream that writes to another: it replaces characters the other cannot encode and ignores write errors.

    Args:
        target: Stream to write to. After it or its pipe is closed, or its disk is full, all further output to it is
            discarded, including the output of other code.
    """

    def __init__(self, target: TextIO) -> None:
        self._target = target

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the target, by which rich chooses the lines of tables."""
        return getattr(self._target, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def isatty(self) -> bool:
        """Whether the target is a terminal."""
        return bool(self._attempt("isatty"))

    def fileno(self) -> int:
        """File descriptor of the target."""
        return self._target.fileno()

    def write(self, text: str) -> int:
        """Write what can be written."""
        self._attempt("write", self.fit(text))
        return len(text)

    def fit(self, text: str) -> str:
        """The text with what the target cannot encode replaced."""
        return text.encode(self.encoding, DEGRADE).decode(self.encoding)

    def flush(self) -> None:
        """Flush the target."""
        self._attempt("flush")

    def _attempt(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._target, method)(*arguments)
        except RuntimeError:  # a signal handler prints while this thread is writing ("reentrant call")
            return None
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) or error.errno in _GONE:
                self._drop()
            return None

    def _drop(self) -> None:
        """Redirect the file descriptor to the null device, as Python's documentation advises for closed pipes."""
        try:
            descriptor = self._target.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
        except (OSError, ValueError):
            pass  # no open file descriptor to redirect


class _Console(Console):
    """Replaces characters before it lays out tables: replacements may be longer."""

    def render_str(self, text: str, **settings: Any) -> Text:
        stream = self.file
        return super().render_str(stream.fit(text) if isinstance(stream, SafeStream) else text, **settings)


def console(stderr: bool = False, **settings: Any) -> Console:
    """Return a rich console on the current standard output or standard error.

    Args:
        stderr: Standard error instead of standard output.
        settings: Of :class:`rich.console.Console`.
    """
    stream: Any = sys.stderr if stderr else sys.stdout
    return _Console(file=_safe(stream), **settings)


def _safe(stream: TextIO | None) -> Any:
    """The stream behind a :class:`SafeStream`; a windowless process has none."""
    if isinstance(stream, SafeStream):
        return stream
    return SafeStream(io.StringIO() if stream is None else stream)


def tell(message: str) -> None:
    """Print a line to standard error, whatever its length, and above a progress bar."""
    print_line(message, stderr=True)


def print_line(message: str, stderr: bool = False) -> None:
    """Print a line as it is, whatever its length.

    Args:
        message: The line.
        stderr: To standard error instead of standard output.
    """
    console(stderr).print(message, soft_wrap=True, highlight=False, markup=False, emoji=False)


@contextmanager
def command() -> Iterator[None]:
    """Context of all commands, in which printing is safe and errors that the user can fix are printed as one line.

    Raises:
        SystemExit: With code 2 in place of an :class:`RqlError`, and with code 130 after Ctrl-C.
    """
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _safe(sys.stdout), _safe(sys.stderr)
    try:
        yield
    except RqlError as error:
        tell(f"error: {error}")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        tell("stopped by SIGINT")
        raise SystemExit(130) from None
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # otherwise the interpreter would report a closed pipe at exit
        sys.stdout, sys.stderr = streams
