"""Episodes on fixed seeds, and what is told of them (the protocol: deterministic actions, undiscounted returns)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from rql_lightning.policies import Decider

COLUMNS = ("seed", "length", "basic", "add_on", "success", "metric", "kl")


@dataclass
class Episodes:
    """Finished episodes.

    Attributes:
        table: ``[episodes, len(COLUMNS)]``, one row an episode: seed, length in steps, undiscounted basic and add-on
            return, success (0 or 1), the task's metric, and KL(policy ‖ prior) summed over the visited states. NaN
            stands for what the environment or the policy does not have.
        pictured: Samples of the task's pictured quantity, one a step, ``[steps]``.
        steps: With ``record=True``: arrays over all steps, sorted by episode and time.
    """

    table: np.ndarray
    pictured: np.ndarray
    steps: dict[str, np.ndarray] = field(default_factory=dict)

    def summary(self, metric: str | None, omega: float = 1.0) -> dict[str, float | int | None]:
        """Means and standard deviations over episodes, under the names of ``metrics.json``; ``None`` for NaN."""
        column = dict(zip(COLUMNS, self.table.T, strict=True))
        result: dict[str, float | int | None] = {
            "episodes": len(self.table),
            "success_rate": _number(column["success"].mean()),
        }
        values = {
            "basic_return": column["basic"],
            "add_on_return": column["add_on"],
            "total_return": omega * column["basic"] + column["add_on"],
        }
        if metric is not None:
            values[metric] = column["metric"]
        for name, value in values.items():
            result[f"{name}_mean"] = _number(value.mean())
            result[f"{name}_std"] = _number(value.std())
        result["episode_length_mean"] = _number(column["length"].mean())
        result["kl_to_prior"] = _number(column["kl"].sum() / column["length"].sum())
        return result


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def run_episodes(
    policy: Decider,
    env: VectorEnv,
    seeds: list[int],
    record: bool = False,
    finished: Callable[[int], None] = lambda count: None,
) -> Episodes:
    """Run one episode a seed, deterministically.

    What an episode gives depends on its seed alone, not on the number of environments.

    Args:
        policy: Acts by its mode (argmax of Q_R + ω′ log π).
        env: Customised vector environment in ``AutoresetMode.DISABLED``; seeds beyond its size wait for their turn.
        seeds: One an episode.
        record: Keep every step (see :attr:`Episodes.steps`).
        finished: Told how many episodes have come to their end, whenever some do.

    Returns:
        The episodes in the order of ``seeds``.
    """
    customization = env.customization
    metric = None if customization.metric is None else customization.metric.name
    number = env.num_envs
    episode = np.arange(number)  # which episode each environment runs; those past the last are ignored
    waiting = number
    table = np.full((len(seeds), len(COLUMNS)), np.nan)
    table[:, 0] = seeds
    running = np.zeros((number, len(COLUMNS)))
    pictured: list[np.ndarray] = []
    recorded: list[dict[str, np.ndarray]] = []
    observation, _ = env.reset(seed=[seeds[i] if i < len(seeds) else 0 for i in range(number)])
    while (active := episode < len(seeds)).any():
        decision = policy.decide(observation, env.get_state() if policy.needs_state else None)
        action, divergence = decision.action, np.nan if decision.kl_to_prior is None else decision.kl_to_prior
        following, reward, terminated, truncated, info = env.step(action)
        success = info.get("is_success", np.full(number, np.nan))
        value = info[metric] if metric is not None else np.full(number, np.nan)
        running[:, 1] += 1
        running[:, 2] += info["basic_reward"]
        running[:, 3] += info["add_on_reward"]
        running[:, 4], running[:, 5] = success, value
        running[:, 6] += divergence
        if customization.pictured is not None:
            pictured.append(env.picture((observation, action, following, info))[active])
        done = terminated | truncated
        if record:
            rows = {"episode": episode, "step": running[:, 1].astype(np.int64) - 1, "observation": observation}
            rows |= {"action": action, "next_observation": following, "reward": reward}
            rows |= {"basic_reward": info["basic_reward"], "add_on_reward": info["add_on_reward"]}
            rows |= {"terminated": terminated, "truncated": truncated}
            recorded.append({key: np.array(rows[key])[active] for key in rows})
        observation = following
        if done.any():
            ended = done & active
            table[episode[ended], 1:] = running[ended, 1:]
            finished(int(np.isfinite(table[:, 1]).sum()))
            running[done] = 0.0
            for index in np.flatnonzero(done):
                episode[index], waiting = waiting, waiting + 1
            next_seeds = [seeds[i] if i < len(seeds) else 0 for i in episode]
            observation, _ = env.reset(seed=next_seeds, options={"reset_mask": done})
    return Episodes(table, np.concatenate(pictured) if pictured else np.empty(0), _sorted(recorded))


def _sorted(recorded: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not recorded:
        return {}
    steps = {key: np.concatenate([rows[key] for rows in recorded]) for key in recorded[0]}
    order = np.lexsort((steps["step"], steps["episode"]))
    return {key: value[order] for key, value in steps.items()}
