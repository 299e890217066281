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

from rql_lightning.errors import require
from rql_lightning.reporting.console import command, print_line
from rql_lightning.reproduce.collection import collected
from rql_lightning.reproduce.experiments import EXPERIMENTS, POLICIES, TASKS, TITLES
from rql_lightning.reproduce.options import add_options, conclude, run_plan
from rql_lightning.reproduce.publish import check_published, publish
from rql_lightning.reproduce.report import write_report


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, report.

    Args:
        arguments: Arguments to use in place of those of the process.

    Raises:
        SystemExit: With code 2 if jobs failed or for errors that the user can fix, and 130 after a signal.
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
    parser.add_argument("--seeds", type=int, default=1, help="Number of training seeds. Default: 1.")
    parser.add_argument("--first-seed", type=int, default=0, help="First training seed. Default: 0.")
    parser.add_argument("--out", type=Path, help="Folder of the results. Default: results/<experiment>.")
    parser.add_argument("--publish", type=Path, help="Folder of published results to add these to.")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="Tasks. Default: all.")
    parser.add_argument(
        "--policies", nargs="+", default=[], metavar="POLICY", help=f"Rows of Table 1 to make: {', '.join(POLICIES)}."
    )
    parser.add_argument("--quick", action="store_true", help="Cut down all budgets, to see that everything runs.")
    add_options(parser)
    return parser


def _run(arguments: argparse.Namespace, words: str) -> None:
    require(arguments.seeds >= 1, "--seeds", arguments.seeds, "an integer >= 1")
    require(arguments.first_seed >= 0, "--first-seed", arguments.first_seed, "an integer >= 0")
    unknown = [each for each in arguments.policies if each not in POLICIES] if arguments.experiment == "table1" else []
    require(not unknown, "--policies", ", ".join(unknown), f"some of {', '.join(POLICIES)}")
    out = arguments.out or Path("results", arguments.experiment)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    policies = arguments.policies or (POLICIES if arguments.experiment == "table1" else [])
    plan = EXPERIMENTS[arguments.experiment](arguments.tasks, policies, seeds, arguments.quick, words)
    if arguments.publish is not None:
        require(arguments.publish.resolve() != out.resolve(), "--publish", str(out), "another folder than --out")
        check_published(arguments.publish)  # which says what is wrong with it before anything starts
    outcome = run_plan(plan, out, arguments)
    if outcome is None:
        return
    results, title = collected(plan, out), TITLES[arguments.experiment]
    if results:
        print_line(f"report: {write_report(results, out, title, words)}")
    # Priors that were made for the rows asked for would take the place of those that the other rows customise.
    asked = [result for result in results if not arguments.policies or result.policy in arguments.policies]
    if asked and arguments.publish is not None:
        print_line(f"report: {publish(asked, arguments.publish, title, words)}")
    conclude(outcome, out)


if __name__ == "__main__":
    main()
