"""Checks that a replay buffer fits into memory."""

from __future__ import annotations

import os
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn

from rql_lightning.errors import require

_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Memory limits of control groups, versions 2 and 1; ``max`` or a very large number without a limit."""


def check_memory(replay_size: int, transition_bytes: int, processes: int) -> None:
    """Refuse a replay buffer larger than the memory of the machine or container; warn of one larger than what is free.

    Nothing is checked where the size of the memory cannot be determined.

    Args:
        replay_size: Number of transitions that each process stores.
        transition_bytes: Lower bound of the bytes per transition.
        processes: Number of processes on this machine, each with its own buffer.

    Raises:
        ConfigurationError: If the buffer does not fit; names ``data.replay_size`` and the largest size that fits.
    """
    found = memory()
    if found is None:
        return
    total, available = found
    each = transition_bytes * processes
    described = f"{transition_bytes} bytes per transition" + (f" in {processes} processes" if processes > 1 else "")
    fits = f"at most {total // each:,}: at {described}, that fills the {_gigabytes(total)} of memory here"
    require(replay_size * each <= total, "data.replay_size", replay_size, fits)
    if replay_size * each > available:
        rank_zero_warn(
            f"data.replay_size: found {replay_size}, which takes {_gigabytes(replay_size * each)} once it is full (at "
            f"{described}); {_gigabytes(available)} of memory are available now"
        )


def memory() -> tuple[int, int] | None:
    """Return the number of bytes of memory that this process may use, and how many of them are currently available.

    ``None`` where the operating system does not report its memory in this way, as on Windows.
    """
    try:
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    if page <= 0 or pages <= 0:  # -1: not known
        return None
    total = page * pages
    limits = [_read_number(Path(name), "") for name in _CONTAINER_LIMITS]
    total = min([total, *(limit for limit in limits if limit is not None)])
    kilobytes = _read_number(Path("/proc/meminfo"), "MemAvailable:")
    return total, total if kilobytes is None else min(total, 1024 * kilobytes)


def _read_number(path: Path, label: str) -> int | None:
    """Return the number that follows a label in a file of the operating system, or ``None``."""
    try:
        words = path.read_text(encoding="ascii").partition(label)[2] if label else path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    number = words.split()[0] if words.split() else ""
    return int(number) if number.isdigit() else None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
