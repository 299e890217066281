"""``python -m rql_lightning.reproduce.sweep``: one config over training seeds and values of one key, as a table.

    python -m rql_lightning.reproduce.sweep --config configs/cartpole/residual_soft_q.yaml --seeds 0 1 2
    python -m rql_lightning.reproduce.sweep --config configs/cartpole/residual_soft_q.yaml \
        --vary model.omega_prime model.alpha_hat --values 0.3 0.8 3 10

Several keys are set to the same value together. Each run is a separate process with its own folder. Finished runs are
not repeated, and a folder that contains a run with other settings is refused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.table import Table

from rql_lightning.errors import ConfigurationError, RqlError
from rql_lightning.reporting.console import command, console
from rql_lightning.reporting.metrics import read_metrics
from rql_lightning.reporting.tables import number
from rql_lightning.reproduce.statistics import bootstrap_interval

SHOWN = ("success_rate", "basic_return_mean", "add_on_return_mean", "total_return_mean", "kl_to_prior", "train_seconds")


def run_one(config: str, root: Path, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Run ``fit`` for one seed, unless the run is already finished.

    Args:
        config: Path of the config.
        root: Folder for this run only.
        seed: Training seed.
        overrides: Further arguments of the command line.

    Returns:
        The run's ``metrics.json``.
    """
    words = ["-m", "rql_lightning.train", "fit", "--config", config]
    words += [f"--seed_everything={seed}", f"--trainer.default_root_dir={root}", *overrides]
    settings = {"command": words, "config": Path(config).read_text(encoding="utf-8")}
    memory = root / "settings.json"
    if memory.is_file() and json.loads(memory.read_text(encoding="utf-8")) != settings:
        expected = f"expected {' '.join(words)}; choose another --root"
        raise ConfigurationError(f"{memory}: found a run of other settings, {expected}")
    if not list(root.rglob("metrics.json")):
        root.mkdir(parents=True, exist_ok=True)
        memory.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        words = [sys.executable, *words, "--trainer.enable_progress_bar=false"]
        result = subprocess.run(words, capture_output=True, text=True, errors="replace")
        if result.returncode != 0:
            raise RqlError(f"{' '.join(words)}\n{result.stdout}{result.stderr}")
    path = max(root.rglob("metrics.json"), key=lambda found: found.stat().st_mtime)
    return read_metrics(path)


def main() -> None:
    """Parse, run, print."""
    with command():
        _sweep()


def _sweep() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--vary", nargs="+", default=[], help="Keys of the config, such as model.omega_prime.")
    parser.add_argument("--values", nargs="+", default=[], help="Values that all keys of --vary are set to.")
    parser.add_argument("--root", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--jobs", type=int, default=1, help="Number of parallel processes; at most one per core.")
    arguments, overrides = parser.parse_known_args()
    if not Path(arguments.config).is_file():
        raise ConfigurationError(f"--config: found no file {arguments.config}, expected one")
    if bool(arguments.vary) != bool(arguments.values):
        parser.error("--vary and --values must be given together")
    settings = [(value, [f"--{key}={value}" for key in arguments.vary]) for value in arguments.values] or [("", [])]
    varied = " = ".join(arguments.vary)
    folder = arguments.root / "_".join(Path(arguments.config).with_suffix("").parts[-2:])
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = {
            (value, seed): pool.submit(
                run_one,
                arguments.config,
                folder / f"{'+'.join(arguments.vary) or 'seed'}={value}" / f"seed{seed}",
                seed,
                [*override, *overrides],
            )
            for value, override in settings
            for seed in arguments.seeds
        }
        try:
            results = {key: job.result() for key, job in jobs.items()}
        finally:  # after a failure, the remaining runs are not awaited
            pool.shutdown(cancel_futures=True)
    table = results_over_seeds(arguments.config, varied, results)
    (console() if console().is_terminal else console(width=180)).print(table)


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
    names = [*SHOWN, *metrics]
    table = Table(title=title, title_justify="left")
    for name in (key, "seed", *(name.removesuffix("_mean").replace("_", " ") for name in names)):
        table.add_column(name, justify="right")
    for value in dict.fromkeys(value for value, _ in results):
        runs = {seed: metrics for (of, seed), metrics in results.items() if of == value}
        for seed, run in runs.items():
            table.add_row(value, str(seed), *(_format(run[name]) for name in names))
        if len(runs) > 1:
            columns = [[run[name] for run in runs.values()] for name in names]
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
