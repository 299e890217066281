"""Runs one job of a plan; what is on disk decides what is left to do, so that engines need no memory."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rql_lightning.errors import OutputError, RqlError
from rql_lightning.reproduce.plan import read_plan

PRODUCTS = {"fit": "metrics.json", "test": "metrics.json", "predict": "trajectories/demonstrations.json"}
"""Files that a finished run of each subcommand has."""
LAST_LINES = 8
_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class State:
    """What ``job.json`` says.

    Attributes:
        fingerprint: What the result depends on (:meth:`Plan.fingerprints`).
        command: Arguments of the last process.
        run: Run folder, relative to the job's folder; "" while there is none.
        returncode: Exit code of the last process; 0 for a finished job.
        seconds: Wall-clock seconds of all processes.
        peak_memory_bytes: Largest resident memory of a process.
    """

    fingerprint: str
    command: list[str]
    run: str
    returncode: int
    seconds: float
    peak_memory_bytes: int


class JobError(RqlError):
    """A job's process failed."""


def folder_of(out: Path, name: str) -> Path:
    """Return the folder of a job, ``<out>/jobs/<name>``."""
    return out / "jobs" / name


def read_state(out: Path, name: str) -> State | None:
    """Read the ``job.json`` of a job; ``None`` if it has not run yet."""
    path = folder_of(out, name) / "job.json"
    with suppress(OSError, ValueError, TypeError):
        return State(**json.loads(path.read_text(encoding="utf-8")))
    return None


def is_finished(out: Path, name: str) -> bool:
    """Return whether a job has its product."""
    state = read_state(out, name)
    return state is not None and state.returncode == 0 and (folder_of(out, name) / state.run).is_dir()


def product(out: Path, name: str) -> Path:
    """Return the run folder of a finished job."""
    state = read_state(out, name)
    assert state is not None, f"{name}: a finished job"
    return folder_of(out, name) / state.run


def forget(out: Path, name: str) -> None:
    """Delete the folder of a job."""
    shutil.rmtree(folder_of(out, name), ignore_errors=True)


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[int]:
    """Hold a lock that the system releases when this process, and those that inherit its descriptor, have ended.

    Args:
        path: File to lock; created if it does not exist.
        wait: Whether to wait for another holder to end.

    Raises:
        OutputError: If another process holds it and ``wait`` is false, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"{path}: found {error.strerror!r}, expected a place to write") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            expected = "expected none; wait for it, or choose another folder"
            raise OutputError(f"{path.parent}: found another command that runs a plan here, {expected}") from error
        yield descriptor
    finally:
        os.close(descriptor)


def run_job(out: str, name: str) -> None:
    """Run a job in a process of its own, unless it is finished; a stopped run goes on from its last checkpoint.

    Args:
        out: Folder of the plan.
        name: Name of the job.

    Raises:
        JobError: If the process failed; the message has the last lines of its log.
        OutputError: If the folder cannot be written.
    """
    root = Path(out)
    folder, fingerprint = folder_of(root, name), read_plan(root).fingerprints()[name]
    # The process inherits the lock: if this one is killed, whoever runs the job again waits for the process to end.
    with locked(folder / ".lock", wait=True) as lock:
        if is_finished(root, name):
            return
        before = read_state(root, name)
        returncode = _execute(root, name, lock)
        if read_state(root, name) == before:  # the process did not live to write it
            spent = before or State(fingerprint, [], "", -1, 0.0, 0)
            write_state(folder, replace(spent, fingerprint=fingerprint, returncode=returncode or 1))
    if not is_finished(root, name):
        raise JobError(f"{name}: exit code {returncode}\n{last_lines(root, name)}")


def _execute(root: Path, name: str, lock: int) -> int:
    """Run the process of a job (:mod:`rql_lightning.reproduce.child`); return its exit code."""
    folder = folder_of(root, name)
    command = [sys.executable, "-m", "rql_lightning.reproduce.child", str(root), name]
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy", **os.environ}
    try:
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C in a terminal is passed on by stop_running alone
            )
            _running.add(process)
            try:
                return process.wait()
            finally:
                _running.discard(process)
    except OSError as error:
        raise OutputError(f"{folder}: found {error.strerror!r}, expected a folder that can be written") from error


def stop_running() -> None:
    """Ask the processes of this process to save a checkpoint and to end."""
    for process in tuple(_running):
        process.terminate()


def last_lines(out: Path, name: str) -> str:
    """Return the last lines of a job's log, indented."""
    try:
        text = (folder_of(out, name) / "log.txt").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return "\n".join(f"    {line}" for line in [line for line in lines if line][-LAST_LINES:])


def newest(folder: Path, name: str) -> Path | None:
    """Return the file of this name in the newest run folder below a job's folder that has one; ``None`` if none has."""
    found: list[tuple[Any, Path]] = [(path.stat().st_mtime_ns, path) for path in folder.glob(f"*/*/version_*/{name}")]
    return max(found)[1] if found else None


def write_state(folder: Path, state: State) -> None:
    """Write the ``job.json`` of a job's folder, atomically."""
    beside = folder / ".job.json.tmp"
    try:
        beside.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
        beside.replace(folder / "job.json")
    except OSError as error:
        raise OutputError(f"{folder}: found {error.strerror!r}, expected a folder that can be written") from error
