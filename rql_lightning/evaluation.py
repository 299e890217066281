"""Episodes on fixed seeds and their summary (the protocol: deterministic actions, undiscounted returns)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from rql_lightning.errors import EnvironmentContractError
from rql_lightning.policies import Decider, Decision

COLUMNS = ("seed", "length", "basic", "add_on", "success", "metric", "kl")


MAX_STEPS = 100_000
"""Default bound on the steps of an episode; an episode that has not ended by then is an error."""


class EndlessEpisodeError(EnvironmentContractError):
    """An episode does not end within the bound on its steps.

    Args:
        env: Gymnasium id of the environment.
        seed: Seed of the episode.
        max_steps: Bound on the steps of an episode.
        note: What else the user can do.
    """

    def __init__(self, env: str, seed: int, max_steps: int, note: str = "") -> None:
        self.about = (env, seed, max_steps)
        super().__init__(
            f"{env}, seed {seed}: found an episode that has not ended after {max_steps:,} steps, expected it to "
            f"terminate or be truncated; env_kwargs.max_episode_steps cuts episodes short{note}"
        )


@dataclass
class Episodes:
    """Finished episodes.

    Attributes:
        table: ``[episodes, len(COLUMNS)]``, one row per episode: seed, length in steps, undiscounted basic and add-on
            return, success in the last step (0 or 1; NaN if the last step does not report it), the task's metric (NaN
            if it has none), and KL(policy ‖ prior) summed over the visited states.
        pictured: Samples of the task's pictured quantity, one per step, ``[steps]``.
        steps: With ``record=True``: arrays over all steps, sorted by episode and time.
        has_prior: Whether the policy has a prior; otherwise the column of the KL is NaN.
    """

    table: np.ndarray
    pictured: np.ndarray
    steps: dict[str, np.ndarray] = field(default_factory=dict)
    has_prior: bool = True

    def summary(self, metric: str | None, omega: float = 1.0) -> dict[str, float | int | None]:
        """Means and standard deviations over episodes, under the names of ``metrics.json``.

        Some environments report success only when it happens. Once any episode has reported an outcome, an episode
        that ended without one is therefore a failure.

        Args:
            metric: Name of the task's metric, or ``None``.
            omega: Weight of the basic return in the total return.

        Returns:
            Numbers, which may be infinite or NaN; ``None`` for statistics that are not defined (success, KL, and
            ``successful_…``, those over successful episodes, where there are none).
        """
        column = dict(zip(COLUMNS, self.table.T, strict=True))
        unreported = np.isnan(column["success"])
        result: dict[str, float | int | None] = {
            "episodes": len(self.table),
            "success_rate": None if unreported.all() else float(np.where(unreported, 0.0, column["success"]).mean()),
        }
        values = {
            "basic_return": column["basic"],
            "add_on_return": column["add_on"],
            "total_return": omega * column["basic"] + column["add_on"],
        }
        if metric is not None:
            values[metric] = column["metric"]
        for name, value in values.items():
            result[f"{name}_mean"] = float(value.mean())
            result[f"{name}_std"] = float(value.std())
        result["episode_length_mean"] = float(column["length"].mean())
        result["kl_to_prior"] = float(column["kl"].sum() / column["length"].sum()) if self.has_prior else None
        chosen = column["success"] == 1
        for name, value in values.items():
            result[f"successful_{name}_mean"] = float(value[chosen].mean()) if chosen.any() else None
            result[f"successful_{name}_std"] = float(value[chosen].std()) if chosen.any() else None
        return result


def run_episodes(
    policy: Decider,
    env: VectorEnv,
    seeds: list[int],
    record: bool = False,
    finished: Callable[[int], None] = lambda count: None,
    max_steps: int = MAX_STEPS,
    name: str = "environment",
) -> Episodes:
    """Run one episode per seed, deterministically.

    The results of an episode depend only on its seed, not on the number of environments.

    Args:
        policy: Decider to evaluate; a policy acts by its mode (argmax of Q_R + ω′ log π).
        env: Customised vector environment in ``AutoresetMode.DISABLED``; seeds beyond its size wait for their turn.
        seeds: One per episode.
        record: Keep every step (see :attr:`Episodes.steps`).
        finished: Called with the number of episodes that have ended, whenever some do.
        max_steps: Bound on the steps of one episode.
        name: What messages call the environment.

    Returns:
        The episodes in the order of ``seeds``.

    Raises:
        EnvironmentContractError: if an episode has not ended after ``max_steps`` steps, or if the decider needs the
            state of environments whose state cannot be read.
    """
    return EpisodeRun(policy, env, seeds, record, finished, max_steps, name).episodes()


class EpisodeRun:
    """The running episodes of :func:`run_episodes`, whose arguments it takes."""

    def __init__(
        self,
        policy: Decider,
        env: VectorEnv,
        seeds: list[int],
        record: bool = False,
        finished: Callable[[int], None] = lambda count: None,
        max_steps: int = MAX_STEPS,
        name: str = "environment",
    ) -> None:
        self.policy, self.env, self.seeds, self.record = policy, env, seeds, record
        self.finished = finished
        self.max_steps, self.name = max_steps, name
        metric = env.customization.metric
        self.metric = None if metric is None else metric.name
        self.episode = np.arange(env.num_envs)  # which episode each environment runs; those past the last are ignored
        self.waiting = env.num_envs
        self.table = np.full((len(seeds), len(COLUMNS)), np.nan)
        self.table[:, 0] = seeds
        self.running = np.zeros((env.num_envs, len(COLUMNS)))
        self.has_prior = False
        self.pictured: list[np.ndarray] = []
        self.recorded: list[dict[str, np.ndarray]] = []

    def episodes(self) -> Episodes:
        """Run all episodes."""
        observation, _ = self.env.reset(seed=self._next_seeds())
        while (active := self.episode < len(self.seeds)).any():
            observation = self._step(observation, active)
        pictured = np.concatenate(self.pictured) if self.pictured else np.empty(0)
        return Episodes(self.table, pictured, _sorted(self.recorded), self.has_prior)

    def so_far(self) -> Episodes:
        """Return the episodes that have ended, of a run that was stopped; without samples and steps."""
        ended = np.isfinite(self.table[:, 1])
        return Episodes(self.table[ended], np.empty(0), {}, self.has_prior)

    def _next_seeds(self) -> list[int]:
        return [self.seeds[i] if i < len(self.seeds) else 0 for i in self.episode]

    def _step(self, observation: Any, active: np.ndarray) -> Any:
        """One step of every environment; returns the observations to go on from."""
        decision = self.policy.decide(observation, readable_state(self.policy, self.env, observation, self.name))
        following, reward, terminated, truncated, info = self.env.step(decision.action)
        self._account(decision, info)
        if self.env.customization.pictured is not None:
            transition = (observation, decision.action, following, info)
            self.pictured.append(self.env.picture(transition)[active])
        if self.record:
            rows = {"episode": self.episode, "step": self.running[:, 1].astype(np.int64) - 1}
            rows |= {"observation": observation, "action": decision.action, "next_observation": following}
            rows |= {"reward": reward, "terminated": terminated, "truncated": truncated}
            rows |= {key: info[key] for key in ("basic_reward", "add_on_reward")}
            self.recorded.append({key: np.asarray(rows[key])[active] for key in rows})
        done = terminated | truncated
        self._check_length(active & ~done)
        return self._restart(done, active) if done.any() else following

    def _account(self, decision: Decision, info: dict[str, Any]) -> None:
        unknown = np.full(self.env.num_envs, np.nan)
        success = np.asarray(info.get("is_success", unknown), dtype=np.float64)
        told = info.get("_is_success", np.ones(self.env.num_envs, dtype=bool))  # vector environments fill up with 0
        self.has_prior |= decision.kl_to_prior is not None
        self.running[:, 1] += 1
        self.running[:, 2] += info["basic_reward"]
        self.running[:, 3] += info["add_on_reward"]
        self.running[:, 4] = np.where(told, success, np.nan)
        self.running[:, 5] = unknown if self.metric is None else info[self.metric]
        self.running[:, 6] += unknown if decision.kl_to_prior is None else decision.kl_to_prior

    def _check_length(self, unfinished: np.ndarray) -> None:
        endless = np.flatnonzero(unfinished & (self.running[:, 1] >= self.max_steps))
        if len(endless):
            raise EndlessEpisodeError(self.name, self.seeds[self.episode[endless[0]]], self.max_steps)

    def _restart(self, done: np.ndarray, active: np.ndarray) -> Any:
        """Enter finished episodes into the table and start waiting ones in their place."""
        ended = done & active
        self.table[self.episode[ended], 1:] = self.running[ended, 1:]
        self.finished(int(np.isfinite(self.table[:, 1]).sum()))
        self.running[done] = 0.0
        for index in np.flatnonzero(done):
            self.episode[index], self.waiting = self.waiting, self.waiting + 1
        observation, _ = self.env.reset(seed=self._next_seeds(), options={"reset_mask": done})
        return observation


def readable_state(decider: Decider, env: VectorEnv, observation: Any, name: str) -> Any:
    """Return the environments' state for a decider that needs it, otherwise ``None``.

    Args:
        decider: Decider to which the state is passed. One with a method ``read_state(env, observation)`` reads the
            state itself; for others it is the result of ``env.get_state()``.
        env: Customised vector environment.
        observation: Present observations, ``[N, *observation_shape]``.
        name: What messages call the environment.

    Raises:
        EnvironmentContractError: if the state is needed and cannot be read.
    """
    if not decider.needs_state:
        return None
    if hasattr(decider, "read_state"):
        return decider.read_state(env, observation)
    try:
        return env.get_state()
    except NotImplementedError as error:
        raise EnvironmentContractError(
            f"{name}: found an environment whose state cannot be read ({error}), expected one with get_state, which "
            f"{type(decider).__name__} needs to decide"
        ) from error


def _sorted(recorded: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not recorded:
        return {}
    order = np.lexsort([np.concatenate([rows[key] for rows in recorded]) for key in ("step", "episode")])
    # One column after the other, which frees its rows: all of them together are the memory of recording.
    return {key: np.concatenate([rows.pop(key) for rows in recorded])[order] for key in list(recorded[0])}
