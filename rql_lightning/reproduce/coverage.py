"""``python -m rql_lightning.reproduce.coverage``: how well imitation priors cover what customization needs of them.

    python -m rql_lightning.reproduce.coverage --expert pretrained:cartpole-rl \
        --customised runs/cartpole/residual_soft_q_from_il/version_0/checkpoints/last.ckpt \
        --priors 10=runs/…/last.ckpt 100=pretrained:cartpole-il --out runs/coverage/cartpole

Each prior is compared with the expert that it imitates, on fresh episodes of the expert and on the states that a
customised policy visits. Names that are numbers of episodes of demonstrations become the horizontal axis of a figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from rql_lightning.data import TaskDataModule
from rql_lightning.errors import CheckpointError, ConfigurationError, require
from rql_lightning.evaluation import run_episodes
from rql_lightning.loading import load_policy
from rql_lightning.policies import Decider, Policy, SampledPolicy
from rql_lightning.reporting.console import command, console, print_line
from rql_lightning.reporting.figures import coverage_figure
from rql_lightning.reporting.metrics import write_metrics

EXPERT_SEEDS, VISIT_SEEDS, RETURN_SEEDS = 20_000_000, 21_000_000, 1_000_000
QUANTILE = 0.01


@dataclass(frozen=True)
class Visits:
    """States that a policy visited, and what it did there.

    Attributes:
        observation: ``[F, *observation_shape]``.
        action: Actions in the environment's units, ``[F, *action_shape]``.
    """

    observation: Tensor
    action: Tensor


def visits(decider: Decider, data: TaskDataModule, seeds: list[int]) -> Visits:
    """Run one episode per seed and return all steps."""
    env = data.make_env(min(len(seeds), 100))
    try:
        steps = run_episodes(decider, env, seeds, record=True).steps
    finally:
        env.close()
    return Visits(torch.from_numpy(steps["observation"]).float(), torch.from_numpy(steps["action"]))


@torch.no_grad()
def coverage(expert: Policy, prior: Policy, demonstrated: Visits, customised: Visits) -> dict[str, float]:
    """Compare a prior with the expert.

    Args:
        expert: Policy that made the demonstrations.
        prior: Policy that imitates it.
        demonstrated: Steps of the expert that the prior has not seen.
        customised: Steps of a policy that customises the prior, or another prior of the task.

    Returns:
        ``kl_demonstrated`` and ``kl_customised``: means of KL(expert ‖ prior) in nats over the states of either; and
        ``log_prob_floor`` and ``log_prob_quantile``: the minimum and the 1 % quantile of log π(a|s) of the customised
        policy's actions, for continuous actions with respect to the environment's units.
    """
    result = {}
    for name, states in (("kl_demonstrated", demonstrated), ("kl_customised", customised)):
        ours, theirs = (each.distribution_parameters(states.observation) for each in (expert, prior))
        result[name] = expert.family.kl(ours, prior.family, theirs).mean().item()
    log_prob = prior.log_prob_of(customised.observation, customised.action).double()
    result["log_prob_floor"] = log_prob.min().item()
    result["log_prob_quantile"] = log_prob.sort().values[int(QUANTILE * len(log_prob))].item()
    return result


def main(arguments: list[str] | None = None) -> None:
    """Parse, measure, print, draw.

    Args:
        arguments: Arguments to use in place of those of the process.
    """
    with command():
        _run(arguments)


def _run(words: list[str] | None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expert", required=True, help="Policy that made the demonstrations: a checkpoint or a name.")
    parser.add_argument("--customised", required=True, help="Policy that customises a prior of the same task.")
    parser.add_argument("--priors", nargs="+", required=True, help="Priors, as NAME=CHECKPOINT.")
    parser.add_argument("--episodes", type=int, default=200, help="Number of episodes per measurement.")
    parser.add_argument("--out", type=Path, default=Path("runs/coverage"), help="Folder for the results.")
    arguments = parser.parse_args(words)
    require(arguments.episodes >= 1, "--episodes", arguments.episodes, "an integer >= 1")
    expert, customised = load_policy(arguments.expert), load_policy(arguments.customised)
    priors = {name: load_policy(path) for name, path in map(_named, arguments.priors)}
    data = _task(expert, customised, *priors.values())
    count = arguments.episodes
    demonstrated = visits(SampledPolicy(expert, 0.0, 0), data, list(range(EXPERT_SEEDS, EXPERT_SEEDS + count)))
    visited = visits(customised, data, list(range(VISIT_SEEDS, VISIT_SEEDS + count)))
    results: dict[str, dict[str, Any]] = {}
    for name, prior in priors.items():
        results[name] = {**coverage(expert, prior, demonstrated, visited), **_returns(prior, data, count)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    flat = {f"{name}/{key}": value for name, result in results.items() for key, value in result.items()}
    write_metrics({"expert": arguments.expert, "episodes": count, **flat}, arguments.out / "coverage.json")
    console(width=120).print(coverage_table(f"{expert.task}: priors against {arguments.expert}", results))
    counts = {int(name): result for name, result in results.items() if name.isdigit()}
    if len(counts) > 1:
        reference = _returns(expert, data, count)
        figure = coverage_figure(counts, reference["basic_return_mean"], str(expert.task))
        figure.savefig(arguments.out / "coverage.png", dpi=150)
        print_line(f"figure: {arguments.out / 'coverage.png'}")


def _named(word: str) -> tuple[str, str]:
    name, separator, path = word.partition("=")
    if not separator or not name or not path:
        raise ConfigurationError(f"--priors: found {word!r}, expected NAME=CHECKPOINT")
    return name, path


def _task(expert: Policy, *others: Policy) -> TaskDataModule:
    """Return the task of the policies, ready to create environments.

    Raises:
        CheckpointError: If the policies are not of one task.
    """
    tasks = sorted({str(policy.task) for policy in (expert, *others)})
    if len(tasks) > 1:
        raise CheckpointError(f"found policies of the tasks {', '.join(tasks)}, expected one task")
    data = TaskDataModule(env=tasks[0])
    data.setup("test")
    return data


def _returns(policy: Policy, data: TaskDataModule, count: int) -> dict[str, Any]:
    """Return success rate and basic return of a policy, on the seeds of evaluation."""
    env = data.make_env(min(count, 100))
    try:
        summary = run_episodes(policy, env, list(range(RETURN_SEEDS, RETURN_SEEDS + count))).summary(None)
    finally:
        env.close()
    return {key: summary[key] for key in ("success_rate", "basic_return_mean", "basic_return_std")}


def coverage_table(title: str, results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table with one row per prior.

    Args:
        title: Title of the table.
        results: Results of :func:`coverage` and returns, by name of the prior.
    """
    table = Table(title=title, title_justify="left")
    labels = ("prior", "KL, demonstrated", "KL, customised", "log π floor", "log π 1 %", "success", "basic return")
    for label in labels:
        table.add_column(label, justify="right")
    for name, row in results.items():
        numbers = [f"{row[key]:.3f}" for key in ("kl_demonstrated", "kl_customised")]
        numbers += [f"{row[key]:.2f}" for key in ("log_prob_floor", "log_prob_quantile")]
        table.add_row(name, *numbers, f"{100 * row['success_rate']:.1f} %", f"{row['basic_return_mean']:.2f}")
    return table


if __name__ == "__main__":
    main()
