"""Runs a plan on an engine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from rql_lightning.errors import ConfigurationError
from rql_lightning.reporting.console import print_line
from rql_lightning.reproduce.engines import Engine
from rql_lightning.reproduce.jobs import folder_of, forget, is_finished, last_lines, locked, read_state
from rql_lightning.reproduce.plan import Plan

SHOWN = 5
"""Number of jobs that did not run to name."""


@dataclass
class Outcome:
    """What became of a plan's jobs.

    Attributes:
        finished: Names of finished jobs.
        failed: Reasons by name.
        waiting: Names of jobs that did not run, because a job that they need failed, or the plan was stopped.
        stopped: Whether the plan was stopped by a signal.
    """

    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    stopped: bool = False


def execute(plan: Plan, out: Path, engine: Engine, force: bool = False) -> Outcome:
    """Run the jobs of a plan that are not finished.

    Args:
        plan: The plan, which is written to ``out``.
        out: Folder of the plan.
        engine: Runs the jobs.
        force: Whether results of other settings or of another version are deleted, rather than refused.

    Raises:
        ConfigurationError: If the folder has results of other settings, and ``force`` is false.
        OutputError: If the folder cannot be written, or another process runs a plan in it.
    """
    with locked(out / ".lock", wait=False):
        _check(plan, out, force)
        plan.write(out)
        with _stopping(engine) as stopped:
            return _drive(plan, out, engine, stopped)


def _check(plan: Plan, out: Path, force: bool) -> None:
    """Refuse, or delete, results of other settings."""
    for name, fingerprint in plan.fingerprints().items():
        state = read_state(out, name)
        if state is None or state.fingerprint == fingerprint:
            continue
        if not force:
            expected = "expected those of this command; choose another folder, or --force to delete them"
            raise ConfigurationError(
                f"{folder_of(out, name)}: found a result of other settings or of another version, {expected}"
            )
        forget(out, name)


def _drive(plan: Plan, out: Path, engine: Engine, stopped: list[int]) -> Outcome:
    outcome, running = Outcome(), dict[Future[None], str]()
    left = [job for job in plan if not is_finished(out, job.name)]
    outcome.finished = [job.name for job in plan if job not in left]
    if outcome.finished:
        print_line(f"{len(outcome.finished)} of {len(plan)} jobs are finished already")
    while left or running:
        ready = [job for job in left if set(job.needs) <= set(outcome.finished)] if not stopped else []
        for job in ready:
            if len(running) >= engine.slots:
                break
            left.remove(job)
            running[engine.submit(out, job.name)] = job.name
        if not running:
            break
        wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in [each for each in running if each.done()]:  # wait passes over cancelled ones
            _note(outcome, out, running.pop(future), future, len(plan), bool(stopped))
    outcome.waiting += [job.name for job in left]
    outcome.stopped = bool(stopped)
    return outcome


def _note(outcome: Outcome, out: Path, name: str, future: Future[None], count: int, stopped: bool) -> None:
    try:
        future.result()
    except (Exception, CancelledError) as error:  # an engine's own, too: the other jobs go on
        if stopped:  # by the signal, and not at fault
            outcome.waiting.append(name)
            return
        outcome.failed[name] = str(error).strip() or type(error).__name__
        print_line(f"failed: {name}")
        return
    outcome.finished.append(name)
    state = read_state(out, name)
    seconds = 0.0 if state is None else state.seconds
    print_line(f"[{len(outcome.finished)}/{count}] {name}: {seconds:.0f} s")


@contextmanager
def _stopping(engine: Engine) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM stop the engine, whose jobs then save checkpoints; yields the signals received."""
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        engine.stop()

    before = {}
    for each in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError):  # not in the main thread
            before[each] = signal.signal(each, stop)
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def plan_table(plan: Plan, out: Path) -> Table:
    """Return a table of a plan's jobs: what they need, whether they are finished, and how long they take."""
    table = Table(title=f"{plan.name}: {len(plan)} jobs", title_justify="left")
    for label in ("job", "command", "needs", "state", "minutes"):
        table.add_column(label, justify="right" if label == "minutes" else "left", overflow="fold")
    for job in plan:
        state, finished = read_state(out, job.name), is_finished(out, job.name)
        told = "finished" if finished else "to be run" if state is None else f"stopped, exit code {state.returncode}"
        seconds = state.seconds if finished and state is not None else job.estimate
        needs = ", ".join(job.needs) or "–"
        table.add_row(
            job.name, f"{job.subcommand} {job.config}", needs, told, "–" if seconds is None else f"{seconds / 60:.1f}"
        )
    return table


def failures(outcome: Outcome, out: Path) -> str:
    """Return what failed, with the last lines of the logs, and what did not run; "" if nothing."""
    lines = []
    for name, reason in outcome.failed.items():
        log = folder_of(out, name) / "log.txt"
        lines.append(f"failed: {name} ({log})\n{last_lines(out, name) or reason}")
    if outcome.waiting:
        more = f" and {len(outcome.waiting) - SHOWN} more" if len(outcome.waiting) > SHOWN else ""
        lines.append(f"not run: {', '.join(outcome.waiting[:SHOWN])}{more}")
    return "\n".join(lines)
