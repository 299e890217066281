"""Numba, with a cache on disk that notices a change in any file of this package."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
_FINGERPRINT = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:12]
_told: set[str] = set()


def entry_point(function: Callable[..., Any], parallel: bool = False) -> Callable[..., Any]:
    """Compile a function that Python calls, without the interpreter's lock, and keep the machine code on disk.

    Numba looks at the file of the function alone to tell whether its cache is stale, not at those that the function
    calls into. The fingerprint of all of them is therefore a part of the name that the cache goes by, and so is whether
    ``prange`` means threads, which the cache does not look at either.

    Where neither this package's folder nor the user's cache can be written, nothing is kept; a warning says so once.

    Args:
        function: To be compiled at its first call.
        parallel: Whether ``prange`` in it runs on several threads.
    """
    function.__qualname__ = f"{function.__name__}-{'parallel' if parallel else 'serial'}-{_FINGERPRINT}"
    options = {"parallel": parallel, "nogil": True}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError as error:  # what Numba raises where it finds no folder
        if "cannot cache" not in str(error):
            raise
        _tell_once(
            "the compiled simulators are compiled anew in every process, which takes some ten seconds: there is no "
            "folder that can be written for the machine code (the environment variable NUMBA_CACHE_DIR names one)"
        )
        return njit(**options)(function)


def _tell_once(message: str) -> None:
    if message not in _told:
        _told.add(message)
        warnings.warn(message, stacklevel=3)
