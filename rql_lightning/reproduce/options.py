"""Options of the commands that run plans, and what they do."""

from __future__ import annotations

import argparse
from pathlib import Path

from rql_lightning.errors import RqlError, require
from rql_lightning.reporting.console import console, print_line
from rql_lightning.reproduce.engines import Engine, LocalEngine, RayEngine, SlurmEngine
from rql_lightning.reproduce.execution import Outcome, execute, failures, plan_table
from rql_lightning.reproduce.jobs import is_finished
from rql_lightning.reproduce.plan import Plan


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`run_plan` reads.

    Args:
        parser: Parser of the command.
    """
    parser.add_argument("--dry-run", action="store_true", help="Print the plan and how long it takes, and run nothing.")
    parser.add_argument("--force", action="store_true", help="Delete results of other settings that are in the way.")
    parser.add_argument("--engine", choices=("local", "slurm", "ray"), default="local", help="Where jobs run.")
    parser.add_argument("--jobs", type=int, default=1, help="Jobs at a time of the engine local. Default: 1.")
    parser.add_argument("--address", help="Address of a Ray cluster; without it, one is started on this machine.")
    parser.add_argument("--partition", help="Slurm partition.")
    parser.add_argument("--minutes", type=int, default=240, help="Slurm's time limit of a job, in minutes.")
    parser.add_argument("--memory-gb", type=float, default=8, help="Slurm's memory of a job, in GiB.")


def run_plan(plan: Plan, out: Path, given: argparse.Namespace) -> Outcome | None:
    """Run a plan on the engine that was asked for, or print it; ``None`` if it was printed.

    Args:
        plan: The plan.
        out: Folder of the plan.
        given: Values of the options of :func:`add_options`.

    Raises:
        ConfigurationError: If an option is out of range, a config is missing, or results of other settings are there.
        OutputError: If the folder cannot be written, or another process runs a plan in it.
    """
    require(given.jobs >= 1, "--jobs", given.jobs, "an integer >= 1")
    plan.fingerprints()  # which says what is missing before anything starts
    if given.dry_run:
        _show(plan, out, given.jobs)
        return None
    return execute(plan, out, _engine(given, out), given.force)


def _show(plan: Plan, out: Path, jobs: int) -> None:
    (console() if console().is_terminal else console(width=160)).print(plan_table(plan, out))
    left = [job.estimate for job in plan if not is_finished(out, job.name)]
    if None in left:
        print_line(f"left: {len(left)} jobs, whose time is not known")
        return
    hours = sum(seconds or 0.0 for seconds in left) / 3600
    told = f"; some {hours / jobs:.1f} h with --jobs {jobs}" if jobs > 1 else ""
    print_line(f"left: {hours:.1f} hours of one core{told}")


def _engine(given: argparse.Namespace, out: Path) -> Engine:
    if given.engine == "slurm":
        return SlurmEngine(out / "slurm", given.minutes, given.partition, given.memory_gb)
    return RayEngine(given.address) if given.engine == "ray" else LocalEngine(given.jobs)


def conclude(outcome: Outcome, out: Path) -> None:
    """Say which jobs failed and which did not run.

    Args:
        outcome: What became of the plan.
        out: Folder of the plan.

    Raises:
        RqlError: If jobs failed.
        SystemExit: With code 130 after a signal.
    """
    told = failures(outcome, out)
    if told:
        print_line(told)
    if outcome.stopped:
        print_line("stopped: the same command goes on from here")
        raise SystemExit(130)
    if outcome.failed:
        raise RqlError(f"{len(outcome.failed)} jobs failed; the same command tries them again")
