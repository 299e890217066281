"""Results of a plan's finished jobs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from rql_lightning.reporting.metrics import read_metrics
from rql_lightning.reproduce.jobs import is_finished, product, read_state
from rql_lightning.reproduce.plan import Plan
from rql_lightning.reproduce.results import Result
from rql_lightning.reproduce.rows import REFERENCE, SWEPT

OMEGA_PRIME = "model.omega_prime"
"""Key of a job's settings whose value tells the runs of a sweep apart."""


def collected(plan: Plan, out: Path) -> list[Result]:
    """Return the results of the jobs of a plan that are finished and have a row.

    Args:
        plan: The plan.
        out: Its folder.

    Returns:
        Results in the plan's order. Metrics on the reference environments have the prefix ``reference_``, and a sweep's
        value of ω′ is the metric ``omega_prime``.
    """
    results = []
    for job in plan:
        state = read_state(out, job.name)
        if job.row is None or state is None or not is_finished(out, job.name):
            continue
        run = product(out, job.name)
        metrics: dict[str, Any] = read_metrics(run / "metrics.json")
        if (run / "reference_metrics.json").is_file():
            metrics |= {
                f"{REFERENCE}{key}": value for key, value in read_metrics(run / "reference_metrics.json").items()
            }
        with suppress(ValueError):  # null is the config's own
            metrics |= {SWEPT: float(job.settings[OMEGA_PRIME])} if OMEGA_PRIME in job.settings else {}
        command = " ".join(["python", *state.command])
        row, memory = job.row, state.peak_memory_bytes or None
        results.append(Result(row.task, row.policy, row.seed, metrics, run, command, state.seconds, memory))
    return results
