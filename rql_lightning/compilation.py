"""Numba, with a cache on disk that notices a change in any compiled code of the package that a function is in."""

from __future__ import annotations

import hashlib
import inspect
import logging
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import event

_told: set[str] = set()


class _Announcement(event.Listener):
    """Say once in a process that code is being compiled, which is a long silence otherwise; cached code is not."""

    def on_start(self, event: Any) -> None:
        module = getattr(event.data["dispatcher"].py_func, "__module__", None) or ""
        if module.partition(".")[0] == __name__.partition(".")[0] and __name__ not in _told:
            _told.add(__name__)
            logging.getLogger(__name__).warning("compiling simulators or planners: up to a minute, once on a machine")

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


event.register("numba:compile", _Announcement())


def entry_point(function: Callable[..., Any], parallel: bool = False) -> Callable[..., Any]:
    """Compile a function that Python calls, without the interpreter's lock, and keep the machine code on disk.

    Numba looks at the file of the function alone to tell whether its cache is stale, not at those that the function
    calls into. The fingerprint of all compiled code of the package is therefore a part of the name that the cache goes
    by, and so is whether ``prange`` means threads, which the cache does not look at either.

    Where neither this package's folder nor the user's cache can be written, nothing is kept; a warning says so once.

    Args:
        function: To be compiled at its first call.
        parallel: Whether ``prange`` in it runs on several threads.
    """
    folder = Path(inspect.getfile(function)).parent
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    function.__qualname__ = f"{function.__name__}-{'parallel' if parallel else 'serial'}-{fingerprint(folder)}"
    options = {"parallel": parallel, "nogil": True}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError as error:  # what Numba raises where it finds no folder
        if "cannot cache" not in str(error):
            raise
        _tell_once(
            "compiled code is compiled anew in every process, which takes some ten seconds: there is no "
            "folder that can be written for the machine code (the environment variable NUMBA_CACHE_DIR names one)"
        )
        return njit(**options)(function)


@cache
def fingerprint(package: Path) -> str:
    """Return a digest of all folders with compiled code in a package, which is read once in a process."""
    sources = {path: path.read_bytes() for path in sorted(package.rglob("*.py"))}
    compiled = {path.parent for path, source in sources.items() if b"@njit" in source}
    return hashlib.sha256(b"".join(sources[path] for path in sources if path.parent in compiled)).hexdigest()[:12]


def _tell_once(message: str) -> None:
    if message not in _told:
        _told.add(message)
        warnings.warn(message, stacklevel=3)
