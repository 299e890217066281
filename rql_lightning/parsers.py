"""Parsers of command lines with hundreds of arguments."""

from __future__ import annotations

import sys
from typing import Any

from jsonargparse import ArgumentParser
from pytorch_lightning.cli import LightningArgumentParser


class ShortErrors(ArgumentParser):
    """Errors are printed without the usage, whose list of all arguments would push the error off the screen."""

    def print_usage(self, file: Any = None, *args: Any, **kwargs: Any) -> None:
        """Print the usage, unless it is to precede an error, which goes to the standard error stream."""
        if file is not sys.stderr:
            super().print_usage(file, *args, **kwargs)


class RunParser(ShortErrors, LightningArgumentParser):
    """Parser of ``python -m rql_lightning.train``."""
