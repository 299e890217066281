"""``python -m rql_lightning.reproduce``: the paper's experiments, each from one command.

    python -m rql_lightning.reproduce table1 --seeds 5 --out results/table1
    python -m rql_lightning.reproduce table1 --tasks cartpole --policies "RL Customized" --dry-run
    python -m rql_lightning.reproduce ablations --tasks mountain_car parking --seeds 3
    python -m rql_lightning.reproduce table1 --engine slurm --partition cpu
    python -m rql_lightning.reproduce table1 --engine ray --address auto

Each job is a run of python -m rql_lightning.train in a process and a folder of its own, <out>/jobs/<name>, with its log
and job.json. The same command, given again, skips finished jobs and lets those that were stopped go on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rql_lightning.errors import RqlError, require
from rql_lightning.reporting.console import command, console, print_line
from rql_lightning.reproduce.collection import collected
from rql_lightning.reproduce.engines import Engine, LocalEngine, RayEngine, SlurmEngine
from rql_lightning.reproduce.execution import Outcome, execute, failures, plan_table
from rql_lightning.reproduce.experiments import EXPERIMENTS, POLICIES, TASKS, TITLES
from rql_lightning.reproduce.jobs import is_finished
from rql_lightning.reproduce.plan import Plan
from rql_lightning.reproduce.publish import publish
from rql_lightning.reproduce.reasons import read_reasons
from rql_lightning.reproduce.report import write_report


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, report.

    Args:
        arguments: Arguments to use in place of those of the process.

    Raises:
        SystemExit: With code 1 if jobs failed, 2 for errors that the user can fix, and 130 after a signal.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with command():
        _run(_parser().parse_args(words), "python -m rql_lightning.reproduce " + shlex.join(words))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rql_lightning.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", choices=EXPERIMENTS, help="Experiment to run.")
    parser.add_argument("--seeds", type=int, default=1, help="Number of training seeds, from 0 on. Default: 1.")
    parser.add_argument("--out", type=Path, help="Folder of the results. Default: results/<experiment>.")
    parser.add_argument("--publish", type=Path, help="Folder of published results to add these to.")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="Tasks. Default: all.")
    parser.add_argument(
        "--policies", nargs="+", default=[], metavar="POLICY", help=f"Rows of Table 1 to make: {', '.join(POLICIES)}."
    )
    parser.add_argument("--quick", action="store_true", help="Cut down all budgets, to see that everything runs.")
    parser.add_argument("--dry-run", action="store_true", help="Print the plan and how long it takes, and run nothing.")
    parser.add_argument("--force", action="store_true", help="Delete results of other settings that are in the way.")
    parser.add_argument("--engine", choices=("local", "slurm", "ray"), default="local", help="Where jobs run.")
    parser.add_argument("--jobs", type=int, default=1, help="Jobs at a time of the engine local. Default: 1.")
    parser.add_argument("--address", help="Address of a Ray cluster; without it, one is started on this machine.")
    parser.add_argument("--partition", help="Slurm partition.")
    parser.add_argument("--minutes", type=int, default=240, help="Slurm's time limit of a job, in minutes.")
    parser.add_argument("--memory-gb", type=float, default=8, help="Slurm's memory of a job, in GiB.")
    return parser


def _run(arguments: argparse.Namespace, words: str) -> None:
    require(arguments.seeds >= 1, "--seeds", arguments.seeds, "an integer >= 1")
    require(arguments.jobs >= 1, "--jobs", arguments.jobs, "an integer >= 1")
    unknown = [each for each in arguments.policies if each not in POLICIES] if arguments.experiment == "table1" else []
    require(not unknown, "--policies", ", ".join(unknown), f"some of {', '.join(POLICIES)}")
    out = arguments.out or Path("results", arguments.experiment)
    seeds, policies = (
        range(arguments.seeds),
        arguments.policies or (POLICIES if arguments.experiment == "table1" else []),
    )
    plan = EXPERIMENTS[arguments.experiment](arguments.tasks, policies, seeds, arguments.quick, words)
    plan.fingerprints()  # which says what is missing before anything starts
    if arguments.publish is not None:
        read_reasons(arguments.publish)  # which says what is wrong with them before anything starts
    if arguments.dry_run:
        _show(plan, out, arguments.jobs)
        return
    outcome = execute(plan, out, _engine(arguments, out), arguments.force)
    results, title = collected(plan, out), TITLES[arguments.experiment]
    if results:
        print_line(f"report: {write_report(results, out, title, words)}")
    if results and arguments.publish is not None:
        print_line(f"report: {publish(results, arguments.publish, title, words)}")
    _conclude(outcome, out)


def _show(plan: Plan, out: Path, jobs: int) -> None:
    (console() if console().is_terminal else console(width=160)).print(plan_table(plan, out))
    left = sum(job.estimate for job in plan if not is_finished(out, job.name)) / 3600
    told = f"; some {left / jobs:.1f} h with --jobs {jobs}" if jobs > 1 else ""
    print_line(f"left: {left:.1f} hours of one core{told}")


def _engine(arguments: argparse.Namespace, out: Path) -> Engine:
    if arguments.engine == "slurm":
        return SlurmEngine(out / "slurm", arguments.minutes, arguments.partition, arguments.memory_gb)
    return RayEngine(arguments.address) if arguments.engine == "ray" else LocalEngine(arguments.jobs)


def _conclude(outcome: Outcome, out: Path) -> None:
    told = failures(outcome, out)
    if told:
        print_line(told)
    if outcome.stopped:
        print_line("stopped: the same command goes on from here")
        raise SystemExit(130)
    if outcome.failed:
        raise RqlError(f"{len(outcome.failed)} jobs failed; the same command tries them again")


if __name__ == "__main__":
    main()
