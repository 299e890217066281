"""Config files are UTF-8, whatever the locale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Path as ConfigPath


@contextmanager
def read_as_utf8() -> Iterator[None]:
    """Read config files, also those that arguments and other config files refer to, as UTF-8 in every locale.

    All files that jsonargparse reads, it reads by this method, in the encoding of the locale.
    """
    original = ConfigPath.read_text

    def read_text(self: ConfigPath) -> str:
        file = Path(self.absolute)
        return file.read_text(encoding="utf-8") if file.exists() else original(self)  # a URL or the standard input

    ConfigPath.read_text = read_text  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigPath.read_text = original  # type: ignore[method-assign]


def print_as_utf8(args: Any) -> None:
    """Print the config of ``--print_config`` as UTF-8, because config files are always read as UTF-8."""
    printed = isinstance(args, list) and any(str(argument).startswith("--print_config") for argument in args)
    if printed and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
