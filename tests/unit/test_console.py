"""Printing never raises, whatever the stream can show, and whether or not anybody reads it."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from typing import Any

import pytest
from rich.progress import Progress

from rql_lightning.errors import ConfigurationError
from rql_lightning.reporting.console import SafeStream, command, console, print_line, tell
from rql_lightning.reporting.tables import results_table

ENCODINGS = ["ascii", "latin-1", "cp1252", "cp932", "cp437", "utf-8"]
SUMMARY = {"success_rate": 0.5, "basic_return_mean": 425.734, "basic_return_std": 2.5, "kl_to_prior": float("inf")}


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``screen(encoding)`` puts a stream in place of standard output; its bytes are ``.buffer.getvalue()``."""

    def screen(encoding: str, errors: str = "strict") -> io.TextIOWrapper:
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors, write_through=True)
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return screen


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_table_in_any_encoding_has_straight_edges(screen, encoding):
    stream = screen(encoding)
    console(width=80).print(results_table("ω′ – π̂ ≥ ∞", {"prior": {}, "policy": SUMMARY}, "mean_abs_position"))
    lines = stream.buffer.getvalue().decode(encoding).splitlines()
    assert any("425.73" in line and "2.50" in line for line in lines)
    assert len({len(line.rstrip()) for line in lines[1:]}) == 1, lines
    assert ("±" in "".join(lines)) == (encoding != "ascii" and "±".encode(encoding, "ignore") != b"")


def test_replacements_read_like_the_original(screen):
    stream = screen("ascii")
    print_line("ω′ – 1.0 ± 0.5 … π̂ → é ∞ ─┃ 🧟 [bold]x[/bold] :smile:")
    expected = "omega' - 1.0 +- 0.5 ... pi -> e inf -| ? [bold]x[/bold] :smile:"
    assert stream.buffer.getvalue().decode().rstrip() == expected


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_file_names_that_are_not_unicode(screen, encoding):
    stream = screen(encoding)
    print_line(f"runs/{os.fsdecode(b'caf') + chr(0xDCE9)}/metrics.json")
    assert stream.buffer.getvalue().decode(encoding).rstrip() == "runs/caf?/metrics.json"


def test_progress_bars_too(screen):
    stream = screen("ascii")
    with Progress(console=console(width=60)) as progress:
        progress.update(progress.add_task("ω′", total=2), completed=2)
    assert "omega'" in stream.buffer.getvalue().decode("ascii")


class Unread(io.StringIO):
    encoding = "utf-8"
    attempts = 0

    def write(self, text: str) -> int:
        self.attempts += 1
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("stream", [Unread(), None])
def test_a_stream_that_nobody_reads(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    print_line("a")
    tell("b")
    console().print(results_table("–", {"policy": SUMMARY}, None))
    assert sys.stdout is stream and (stream is None or stream.attempts > 0), "it was written to, and is the caller's"


def test_a_closed_stream(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    print_line("a")
    assert not SafeStream(stream).isatty()


class Interrupted(io.RawIOBase):
    """A signal handler prints while the stream is being written to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, text: Any) -> int:
        if not self.written:
            tell("from the handler")
        self.written.append(bytes(text))
        return len(text)


def test_a_handler_that_prints_within_a_write(monkeypatch):
    raw = Interrupted()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", write_through=True)
    monkeypatch.setattr(sys, "stderr", stream)
    for line in ("first", "second"):
        tell(line)
        stream.flush()
    screen = b"".join(raw.written).decode()
    assert screen.startswith("first\n") and screen.endswith("second\n")


@pytest.fixture
def pipe():
    """A pipe that does not block: the end to read from, and a stream to write to."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    stream = os.fdopen(writer, "w", encoding="utf-8")
    yield reader, stream
    os.set_blocking(writer, True)
    os.close(reader)
    SafeStream(stream).flush()
    stream.close()


def drained(reader: int) -> bytes:
    """All that the pipe holds."""
    content = b""
    try:
        while part := os.read(reader, 1 << 20):
            content += part
    except BlockingIOError:
        pass
    return content


def test_a_full_pipe_is_written_to_again_once_it_is_read(pipe):
    reader, stream = pipe
    safe = SafeStream(stream)
    for _ in range(5):
        safe.write("x" * 100_000)
        safe.flush()
    assert set(drained(reader)) == {ord("x")}
    safe.write("the end")
    safe.flush()
    assert drained(reader).endswith(b"the end")


@pytest.mark.parametrize(
    ("number", "gone"), [(errno.EPIPE, True), (errno.ENOSPC, True), (errno.EAGAIN, False), (errno.EINTR, False)]
)
def test_a_stream_is_dropped_if_it_can_never_be_written_again(pipe, monkeypatch, number, gone):
    reader, stream = pipe

    class Failing:
        fileno = stream.fileno

        def write(self, text: str) -> int:
            raise OSError(number, os.strerror(number))

    SafeStream(Failing()).write("lost")
    os.write(stream.fileno(), b"afterwards")
    assert drained(reader) == (b"" if gone else b"afterwards")


PIPED = """
import sys, time
from rql_lightning.reporting.console import command, print_line, tell
with command():
    for _ in range(100):
        print_line("–" * 10_000)
        print("ω" * 10_000)
    tell("came to its end")
"""


def test_after_a_closed_pipe_the_process_goes_on_and_exits_with_0():
    process = subprocess.Popen([sys.executable, "-c", PIPED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    screen = process.stderr.read()
    assert process.wait(timeout=60) == 0
    assert screen == "came to its end\n"


def test_a_command_ends_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop, command():
        raise ConfigurationError("model.gamma: found 7, expected a number in [0, 1]")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: model.gamma: found 7, expected a number in [0, 1]\n"
    with pytest.raises(SystemExit) as stop, command():
        raise KeyboardInterrupt
    assert stop.value.code == 130 and capsys.readouterr().err == "stopped by SIGINT\n"
