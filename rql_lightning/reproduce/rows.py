"""Rows of a reproduction's tables: results of one policy on one task over training seeds, as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rql_lightning.reporting.paper import ENVIRONMENTS, METRICS, paper_row, paper_rows
from rql_lightning.reporting.tables import cell as table_cell
from rql_lightning.reporting.tables import number, quantity
from rql_lightning.reproduce.results import Result
from rql_lightning.reproduce.statistics import Estimate, probability_of_improvement, stratified_interval
from rql_lightning.reproduce.verdict import RATES, Cell, Verdict, cells, key_of

SWEPT = "omega_prime"
"""Metric that tells the runs of a sweep apart."""

REFERENCE = "reference_"
"""Prefix of metrics on the reference environments."""

_THREE_DIGITS = ("mean_abs_position", "lane_index")
CUSTOMIZED = "RL Customized"
RESIDUAL = (CUSTOMIZED, "Residual")
"""Names of residual Q-learning in Table 1 and among its alternatives."""


@dataclass(frozen=True)
class Row:
    """The runs of one policy on one task.

    Args:
        task: Name of the task.
        policy: Name of the policy.
        results: Runs, one per training seed.
        cells: Success rate, basic return, add-on return and the task's metric.
    """

    task: str
    policy: str
    results: list[Result]
    cells: list[Cell]

    @property
    def seeds(self) -> str:
        """Training seeds, for people: "0–4" for three and more in a row."""
        found = [result.seed for result in self.results]
        if len(found) > 2 and found == list(range(found[0], found[0] + len(found))):
            return f"{found[0]}–{found[-1]}"
        return ", ".join(str(seed) for seed in found)


def rows(results: Sequence[Result]) -> tuple[list[Row], list[Row], dict[tuple[str, str], list[Row]]]:
    """Group results by task and policy.

    Returns:
        The rows of Table 1 in its order; those that the paper's table does not have, in the order of the results; and
        by task and policy, the rows of those whose runs differ in ``omega_prime``, in ascending order of it.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.task, result.policy), []).append(result)
    swept = {}
    for key in list(groups):
        values = {run.metrics[SWEPT] for run in groups[key] if run.metrics.get(SWEPT) is not None}
        if len(values) > 1:
            runs = groups.pop(key)
            chosen = {value: [run for run in runs if run.metrics.get(SWEPT) == value] for value in sorted(values)}
            swept[key] = [_row((key[0], f"ω′ = {value:g}"), chosen[value]) for value in chosen]
    known = paper_rows()
    table = [_row(key, groups[key]) for key in known if key in groups]
    more = [_row(key, runs) for key, runs in groups.items() if key not in known]
    return table, more, swept


def _row(key: tuple[str, str], results: list[Result]) -> Row:
    ordered = sorted(results, key=lambda result: result.seed)
    return Row(*key, ordered, cells(ordered))


def count(table: Sequence[Row]) -> dict[Verdict, int]:
    """Return how many cells of Table 1 have each verdict."""
    verdicts = [cell.verdict for row in table for cell in row.cells]
    return {verdict: verdicts.count(verdict) for verdict in Verdict}


def value(name: str, content: float | None) -> str:
    """Return a number in the units and digits of its quantity.

    Args:
        name: Key of ``metrics.json``, without ``_mean``.
        content: The number; ``None`` is "–".
    """
    if content is None:
        return "–"
    scale, digits = (100, 2) if name in RATES else (1, 3 if name in _THREE_DIGITS else 2)
    return number(scale * content, f".{digits}f").replace("-", "−")


def ours(cell: Cell) -> str:
    """Return mean ± standard deviation over episodes, rates in percent."""
    if cell.name in RATES:
        return "–" if cell.mean is None else f"{value(cell.name, cell.mean)} %"
    return _spread(cell.name, cell.mean, cell.deviation)


def every(cell: Cell) -> str:
    """Return mean ± standard deviation over all episodes, where :func:`ours` is over successful ones."""
    return "" if cell.every is None else f"all episodes {_spread(cell.name, *cell.every)}"


def _spread(name: str, mean: float | None, deviation: float | None) -> str:
    return f"{value(name, mean)}{'' if deviation is None else f' ± {value(name, deviation)}'}"


def interval(cell: Cell) -> str:
    """Return the interquartile mean over seeds, or the mean over episodes, with its 95 % interval."""
    if cell.estimate is None:
        return ""
    source = "IQM" if cell.seeds > 1 else "episodes"
    return f"{source} {estimate_text(cell.estimate, cell.name)}"


def estimate_text(estimate: Estimate, name: str) -> str:
    """Return an estimate with its interval, if it has one.

    Args:
        estimate: The estimate.
        name: Name of its quantity, which tells units and digits.
    """
    ends = f" [{value(name, estimate.low)}, {value(name, estimate.high)}]" if estimate.has_interval else ""
    return f"{value(name, estimate.value)}{ends}"


def paper(cell: Cell) -> str:
    """Return the paper's number, empty where it has none."""
    if cell.paper is None:
        return ""
    scale = 100 if cell.name in RATES else 1
    deviation = "" if cell.paper_deviation is None else f" ± {cell.paper_deviation:.2f}"
    return f"paper {scale * cell.paper:.2f}{deviation}".replace("-", "−")


def heading(task: str, column: str) -> str:
    """Return the heading of a column.

    Args:
        task: Name of the task, or empty for all tasks.
        column: ``success_rate``, ``basic_return``, ``add_on_return`` or ``metric``.
    """
    return quantity(METRICS.get(task, "metric") if column == "metric" else column)


def over_tasks(table: Sequence[Row]) -> list[tuple[str, int, str, str]]:
    """Aggregate the add-on return of each customised and full policy over tasks.

    The score of a run is (its add-on return − the paper's prior's) / (the paper's policy's − the paper's prior's): 0 is
    the paper's prior and 1 the paper's policy of the same row.

    Returns:
        Per policy: name, number of tasks, interquartile mean of the scores with its stratified bootstrap interval, and
        probability of improvement over our prior in add-on return with its interval ("–" without runs of the prior).
    """
    aggregated = []
    for policy in dict.fromkeys(row.policy for row in table):
        prior = f"{policy.split()[0]} Prior Policy"
        chosen = [row for row in table if row.policy == policy]
        if policy == prior or len(chosen) < 2:
            continue
        scores = []
        for row in chosen:
            worst, best = (_add_on(row.task, name) for name in (prior, policy))
            scores.append([(run - worst) / (best - worst) for run in _compared(row)])
        priors = {row.task: _returns(row, "add_on") for row in table if row.policy == prior}
        pairs = [(_returns(row, "add_on"), priors[row.task]) for row in chosen if row.task in priors]
        text = "–"
        if pairs:
            improved = probability_of_improvement([own for own, _ in pairs], [other for _, other in pairs])
            text = estimate_text(improved, "probability")
        aggregated.append((policy, len(chosen), estimate_text(stratified_interval(scores), "score"), text))
    return aggregated


def _add_on(task: str, policy: str) -> float:
    return paper_row(ENVIRONMENTS[task], policy)["add_on_return_mean"]


def _returns(row: Row, name: str) -> list[float]:
    return [run.metrics[f"{name}_return_mean"] for run in row.results]


def _compared(row: Row) -> list[float]:
    """Add-on returns over the episodes that the paper's are over."""
    found = [run.metrics.get(key_of(row.task, "add_on_return")) for run in row.results]
    return [value for value in found if value is not None]


def improvement(row: Row, table: Sequence[Row]) -> str:
    """Return the probability that a run of residual Q-learning has a higher total return than a run of this policy.

    Args:
        row: The other policy.
        table: Rows among which that of residual Q-learning is looked for; "–" if it is not there.
    """
    for other in table:
        if other.task == row.task and other.policy in RESIDUAL:
            estimate = probability_of_improvement([_returns(other, "total")], [_returns(row, "total")])
            return estimate_text(estimate, "probability")
    return "–"


def on_reference(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return what runs measured on the reference environments, over all of their episodes.

    Args:
        results: All results; those without such numbers are left out.

    Returns:
        Per run: task, policy, seed, success rate, basic return, add-on return, the task's metric, and how many episodes
        are the same as those of the compiled environment.
    """
    lines = []
    for run in results:
        found = {name.removeprefix(REFERENCE): each for name, each in run.metrics.items() if name.startswith(REFERENCE)}
        if not found:
            continue
        names = ("success_rate", "basic_return", "add_on_return", METRICS.get(run.task, ""))
        cells_of_run = [table_cell(name, found).replace("-", "−") for name in names]
        same = f"{found.get('same_episodes', '–')} of {found['episodes']}"
        lines.append((run.task, run.policy, str(run.seed), *cells_of_run, same))
    return lines


def swept_points(row: Row) -> tuple[str, list[float], list[float]]:
    """Return ω′ of a row of a sweep, and basic and add-on return of each seed."""
    weight: Any = row.results[0].metrics[SWEPT]
    return f"{weight:g}", _returns(row, "basic"), _returns(row, "add_on")
