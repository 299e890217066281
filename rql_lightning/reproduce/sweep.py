"""``python -m rql_lightning.reproduce.sweep``: one config over training seeds and values of one key, as a table.

    python -m rql_lightning.reproduce.sweep --config configs/cartpole/residual_soft_q.yaml --seeds 0 1 2
    python -m rql_lightning.reproduce.sweep --config configs/cartpole/residual_soft_q.yaml \
        --vary model.omega_prime model.alpha_hat --values 0.3 0.8 3 10 --jobs 2 --data.total_frames=50_000

Several keys are set to the same value together. Further arguments, --key=value or --key value, are those of
python -m rql_lightning.train. Each run is a job of a plan in <root>/<task>_<config>: the same command, given again,
skips finished runs and lets those that were stopped go on.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from rich.table import Table

from rql_lightning.callbacks.run_folder import folder_names
from rql_lightning.callbacks.run_report import TASKS
from rql_lightning.errors import ConfigurationError, require
from rql_lightning.reporting.console import command, console, print_line
from rql_lightning.reporting.metrics import read_metrics
from rql_lightning.reporting.tables import number
from rql_lightning.reproduce.collection import OMEGA_PRIME, collected
from rql_lightning.reproduce.jobs import is_finished, product
from rql_lightning.reproduce.options import add_options, conclude, run_plan
from rql_lightning.reproduce.plan import Job, Plan, Row
from rql_lightning.reproduce.report import write_report
from rql_lightning.reproduce.statistics import bootstrap_interval

SHOWN = ("success_rate", "basic_return_mean", "add_on_return_mean", "total_return_mean", "kl_to_prior", "train_seconds")
TAKEN = {"trainer.default_root_dir": "--root", "seed_everything": "--seeds", "config": "--config"}
"""Keys that a sweep sets itself, and what they are set by."""
LONGEST = 80
"""Characters of a folder's name."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, print, report.

    Args:
        arguments: Arguments to use in place of those of the process.

    Raises:
        SystemExit: With code 2 if runs failed or for errors that the user can fix, and 130 after a signal.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with command():
        _sweep(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rql_lightning.reproduce.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # keys of the config are not abbreviations
    )
    parser.add_argument("--config", required=True, help="Config of all runs.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="Training seeds. Default: 0.")
    parser.add_argument("--vary", nargs="+", default=[], help="Keys of the config, such as model.omega_prime.")
    parser.add_argument("--values", nargs="+", default=[], help="Values that all keys of --vary are set to.")
    parser.add_argument("--root", type=Path, default=Path("runs/sweep"), help="Parent folder. Default: runs/sweep.")
    add_options(parser)
    return parser


def _sweep(words: list[str]) -> None:
    parser = _parser()
    given, further = parser.parse_known_args(words)
    if not Path(given.config).is_file():
        raise ConfigurationError(f"--config: found no file {given.config}, expected one")
    if bool(given.vary) != bool(given.values):
        parser.error("--vary and --values must be given together")
    told = f"{parser.prog} {shlex.join(words)}"
    plan = sweep(given.config, given.seeds, given.vary, given.values, settings_of(further), told)
    out = given.root / plan.name
    outcome = run_plan(plan, out, given)
    if outcome is None:
        return
    results = collected(plan, out)
    if results:
        table = results_over_seeds(given.config, " = ".join(given.vary), _metrics(given, out))
        (console() if console().is_terminal else console(width=180)).print(table)
        print_line(f"report: {write_report(results, out, f'Sweep of {given.config}', told)}")
    conclude(outcome, out)


def sweep(
    config: str,
    seeds: Sequence[int],
    vary: Sequence[str],
    values: Sequence[str],
    settings: Mapping[str, str],
    command: str,
) -> Plan:
    """Return the plan of one config over training seeds and values.

    Args:
        config: Path of the config.
        seeds: Training seeds.
        vary: Keys that are set to each value together; none for a sweep over seeds alone.
        values: The values.
        settings: Further settings of all runs, by key.
        command: Command line.

    Raises:
        ConfigurationError: If a key is set by other means, or the config is not one.
    """
    both = [key for key in vary if key in TAKEN or key in settings]
    require(not both, "--vary", ", ".join(both), "keys that are not set otherwise")
    distinct = list(dict.fromkeys(values))
    what, weights = Path(config).stem, {_weight(value) for value in distinct}
    require(None in weights or len(weights) == len(distinct), "--values", ", ".join(values), "numbers that differ")
    is_trade_off = OMEGA_PRIME in vary and len(weights) > 1 and None not in weights
    jobs = []
    for value, seed in _runs(values, seeds):
        varied = dict.fromkeys(vary, value)
        policy = what if is_trade_off or not vary else f"{what}, {' = '.join([*vary, value])}"
        row = Row(_task(config, {**settings, **varied}), policy, seed)
        jobs.append(Job(job_name(vary, value, seed), "fit", config, seed, {**varied, **settings}, row))
    return Plan(_legal("_".join(Path(config).with_suffix("").parts[-2:])), command, tuple(jobs))


def settings_of(words: Sequence[str]) -> dict[str, str]:
    """Return further arguments, ``--key=value`` or ``--key value``, as settings by key; of a repeated key, the last.

    Raises:
        ConfigurationError: If a word is neither, or the sweep sets the key itself.
    """
    settings: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals and left and not left[0].startswith("--"):
            equals, value = "=", left.pop(0)
        require(word.startswith("--") and bool(key and equals), "arguments", word, "--key=value or --key value")
        require(key not in TAKEN, f"--{key}", value, f"{TAKEN.get(key)} instead")
        require(not key.endswith("+") or key not in settings, f"--{key}", value, "one value to append")
        settings.pop(key, None)
        settings[key] = value
    return settings


def job_name(vary: Sequence[str], value: str, seed: int) -> str:
    """Return the name of a run, which is a folder's: its value, if a key is varied, and its seed."""
    return "/".join([*([_legal(f"{'+'.join(vary)}={value}")] if vary else []), f"seed{seed}"])


def _legal(text: str) -> str:
    """Return a folder's name for a text: the text itself where it is one, and otherwise one that no other text has."""
    plain = re.sub(r"[^\w.,=+-]", "_", text, flags=re.ASCII)
    if plain == text and len(text) <= LONGEST:
        return text
    return f"{plain[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _runs(values: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Values and seeds of the runs, each once; without values, the value is ""."""
    return list(dict.fromkeys(itertools.product(values or [""], seeds)))


def _weight(value: str) -> float | None:
    with suppress(ValueError):
        return float(value)
    return None


def _task(config: str, settings: Mapping[str, str]) -> str:
    """Short name of the task of a run: that of the paper's tasks, or the one in the names of run folders."""
    env = settings.get("data.env") or settings.get("data.init_args.env") or _env(config)
    return TASKS.get(env) or folder_names(env, "")[0]


def _env(config: str) -> str:
    try:
        content = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
        return str(content["data"].get("init_args", content["data"])["env"])
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        expected = "expected a config of rql_lightning.train with data.env"
        raise ConfigurationError(f"--config: found {type(error).__name__} in {config}, {expected}") from error


def _metrics(given: argparse.Namespace, out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """``metrics.json`` of the finished runs by value and seed."""
    names = {(value, seed): job_name(given.vary, value, seed) for value, seed in _runs(given.values, given.seeds)}
    return {
        run: read_metrics(product(out, name) / "metrics.json") for run, name in names.items() if is_finished(out, name)
    }


def results_over_seeds(title: str, key: str, results: dict[tuple[str, int], dict[str, Any]]) -> Table:
    """Return a table with one row per run and, for each value, the interquartile mean and its 95 % bootstrap interval.

    Args:
        title: Title of the table.
        key: Name of the varied key.
        results: ``metrics.json`` by value and seed.
    """
    first = next(iter(results.values()))
    known = {name.removesuffix("_mean") for name in SHOWN} | {"episode_length"}
    metrics = [name for name in first if name.endswith("_mean") and name.removesuffix("_mean") not in known]
    metrics = [name for name in metrics if not name.startswith("successful_")]  # the table is wide enough
    names = [*SHOWN, *metrics]
    table = Table(title=title, title_justify="left")
    for name in (key, "seed", *(name.removesuffix("_mean").replace("_", " ") for name in names)):
        table.add_column(name, justify="right")
    for value in dict.fromkeys(value for value, _ in results):
        runs = {seed: metrics for (of, seed), metrics in results.items() if of == value}
        for seed, run in runs.items():
            table.add_row(value, str(seed), *(_format(run.get(name)) for name in names))
        if len(runs) > 1:
            columns = [[run.get(name) for run in runs.values()] for name in names]
            table.add_row(value, "IQM", *(_aggregate(column) for column in columns), style="bold", end_section=True)
    return table


def _format(value: float | None) -> str:
    return "–" if value is None else number(value, ".4g" if abs(value) < 1 else ".2f")


def _aggregate(column: list[float | None]) -> str:
    values = [value for value in column if value is not None]
    if len(values) < len(column):
        return "–"
    estimate = bootstrap_interval(values)
    interval = f" [{_format(estimate.low)}, {_format(estimate.high)}]" if estimate.has_interval else ""
    return f"{_format(estimate.value)}{interval}"


if __name__ == "__main__":
    main()
