"""Where a result comes from: versions, machine, commit, memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "pytorch-lightning", "torchrl", "gymnasium", "highway-env", "numba", "numpy")
ROOT = Path(__file__).parents[2]
"""The package's folder."""


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and those that results depend on."""
    from rql_lightning import __version__

    found = {"rql_lightning": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return operating system, processor, number of cores, memory and accelerators, without the machine's name."""
    parts = [f"{platform.system()} {platform.machine()}", _processor(), f"{os.cpu_count()} logical cores"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{size(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} memory")
    torch = sys.modules.get("torch")  # a report without training does without
    if torch is not None and torch.cuda.is_available():
        parts += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(part for part in parts if part)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def commit() -> str | None:
    """Return the commit of the package's files, with "-dirty" where tracked files differ; ``None`` outside a clone."""
    # An environment may lie in a repository that does not hold the package.
    if not _git("ls-files", "--error-unmatch", "__init__.py"):
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def peak_memory() -> int | None:
    """Return the largest resident memory of this process so far in bytes, or ``None`` where it is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def duration(seconds: float) -> str:
    """Return a duration as people read it.

    Args:
        seconds: Seconds.
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float | None) -> str:
    """Return a number of bytes as people read it, "–" for ``None``.

    Args:
        count: Bytes.
    """
    if count is None:
        return "–"
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
