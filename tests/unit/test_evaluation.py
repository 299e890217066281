"""Episodes on fixed seeds, against a plain loop over one environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from rql_lightning.envs import Customization, Metric, make_vector_env
from rql_lightning.errors import EnvironmentContractError
from rql_lightning.evaluation import COLUMNS, Episodes, run_episodes
from rql_lightning.loading import load_policy
from rql_lightning.policies import Decision, Policy, SoftQPolicy
from rql_lightning.priors import FunctionPrior

CARTPOLE = "rql_lightning/CartPole-v0"
SEEDS = list(range(1_000_000, 1_000_011))


def leaning(observation: Tensor, action: Tensor) -> Tensor:
    """Soon falls over, sometimes later, sometimes sooner."""
    side = (2.0 * action - 1) * (observation[:, 2] + 0.4 * observation[:, 3] + 0.3 * observation[:, 0])
    return torch.nn.functional.logsigmoid(8 * side)


@pytest.fixture(scope="module")
def policy() -> SoftQPolicy:
    """An untrained Q-network on top of a prior."""
    env = gym.make("CartPole-v1")
    prior = FunctionPrior(leaning)
    prior.attach(env.observation_space, env.action_space)
    torch.manual_seed(6)
    policy = SoftQPolicy(env.observation_space, env.action_space, [16], 0.3, prior, 0.15)
    with torch.no_grad():
        policy.q_network[-1].weight *= 2
    return policy.requires_grad_(False)


def play(policy: Policy, env: gym.Env[Any, Any], seed: int) -> dict[str, float]:
    """One episode, one step after the other."""
    row = dict.fromkeys(COLUMNS, 0.0) | {"seed": float(seed)}
    observation, _ = env.reset(seed=seed)
    done = False
    while not done:
        if policy.prior is not None:
            twice, both = np.stack([observation] * 2), np.arange(2)
            ours, theirs = policy.log_prob(twice, both), policy.prior.log_prob(twice, both)
            row["kl"] += sum(np.exp(p) * (p - q) for p, q in zip(ours, theirs, strict=True))
        observation, _, terminated, truncated, info = env.step(policy.act(observation))
        row["length"] += 1
        row["basic"] += info["basic_reward"]
        row["add_on"] += info["add_on_reward"]
        row["success"] = float(info.get("is_success", np.nan))
        row["metric"] = info.get("mean_abs_position", np.nan)
        done = terminated or truncated
    return row if policy.prior is not None else row | {"kl": np.nan}


def expected_table(policy: Policy, id: str = CARTPOLE, seeds: list[int] = SEEDS, **kwargs: Any) -> np.ndarray:
    env = gym.make(id, **kwargs)
    return np.array([[play(policy, env, seed)[column] for column in COLUMNS] for seed in seeds])


@pytest.fixture(scope="module")
def expected(policy: SoftQPolicy) -> np.ndarray:
    return expected_table(policy)


def table(policy: Policy, num_envs: int, id: str = CARTPOLE, seeds: list[int] = SEEDS, **kwargs: Any) -> np.ndarray:
    return run_episodes(policy, make_vector_env(id, num_envs, "add_on", env_kwargs=kwargs), seeds).table


@pytest.mark.parametrize("num_envs", [1, 3, 11, 16])
def test_equals_a_plain_loop_whatever_the_number_of_environments(policy, expected, num_envs):
    assert len(set(expected[:, 1])) > 5, "episodes of many lengths"
    assert (expected[:, 6] > 0.01).all()
    np.testing.assert_allclose(table(policy, num_envs), expected, rtol=1e-5)


@pytest.mark.parametrize("seeds", [[1_000_003], [1_000_009, 1_000_001, 1_000_001]])
def test_few_seeds_in_their_own_order(policy, seeds):
    np.testing.assert_allclose(table(policy, 4, seeds=seeds), expected_table(policy, seeds=seeds), rtol=1e-5)


def test_success_and_truncation():
    """A policy that balances for all of the 500 steps, in some of which the episode is cut short."""
    policy = load_policy("pretrained:cartpole-rl")
    seeds = SEEDS[:2]
    full, cut = table(policy, 2, seeds=seeds), table(policy, 2, seeds=seeds, max_episode_steps=40)
    np.testing.assert_allclose(full, expected_table(policy, seeds=seeds), rtol=1e-5)
    np.testing.assert_allclose(cut, expected_table(policy, seeds=seeds, max_episode_steps=40), rtol=1e-5)
    success = COLUMNS.index("success")
    assert full[:, 1:2].tolist() == [[500], [500]] and full[:, success].tolist() == [1, 1]
    assert cut[:, 1:2].tolist() == [[40], [40]] and cut[:, success].tolist() == [0, 0]
    assert np.isnan(full[:, COLUMNS.index("kl")]).all()


@pytest.mark.parametrize("omega", [1.0, 0.5])
def test_summary_is_means_and_deviations_over_episodes(policy, expected, omega):
    summary = run_episodes(policy, make_vector_env(CARTPOLE, 4, "add_on"), SEEDS).summary("mean_abs_position", omega)
    column = dict(zip(COLUMNS, expected.T, strict=True))
    wanted = {"episodes": 11, "success_rate": column["success"].mean()}
    assert wanted["success_rate"] == 0
    for name, values in {
        "basic_return": column["basic"],
        "add_on_return": column["add_on"],
        "total_return": omega * column["basic"] + column["add_on"],
        "mean_abs_position": column["metric"],
    }.items():
        wanted[f"{name}_mean"] = sum(values) / 11
        wanted[f"{name}_std"] = (sum((value - sum(values) / 11) ** 2 for value in values) / 11) ** 0.5
    wanted["episode_length_mean"] = column["length"].mean()
    wanted["kl_to_prior"] = column["kl"].sum() / column["length"].sum()  # over visited states, not over episodes
    undefined = {key for key, value in summary.items() if value is None}
    assert undefined == {
        f"successful_{key}"
        for key in wanted
        if key.endswith(("return_mean", "return_std", "position_mean", "position_std"))
    }
    assert {key: value for key, value in summary.items() if value is not None} == pytest.approx(wanted, rel=1e-4)
    assert abs(wanted["kl_to_prior"] - (column["kl"] / column["length"]).mean()) > 1e-3


def test_what_an_environment_does_not_have_is_none(register, movement):
    policy = load_policy("pretrained:cartpole-rl")
    id = register("CartPole-v1", movement)
    summary = run_episodes(policy, make_vector_env(id, 2, "add_on"), SEEDS[:3]).summary(None)
    assert summary["success_rate"] is None and summary["kl_to_prior"] is None
    assert summary["episodes"] == 3 and summary["episode_length_mean"] == 500
    assert summary["basic_return_mean"] == 500 and not any("position" in key for key in summary)


def test_success_as_the_environment_reports_it(register, movement, policy):
    id = register("CartPole-v1", Customization(movement, metric=Metric("furthest", movement, "max")))
    assert np.isnan(table(policy, 2, id=id)[:, COLUMNS.index("success")]).all()
    told = Customization(movement, is_success=lambda *step: step[3]["step"] >= 60, vectorized=True)
    rows = table(policy, 2, id=register("CartPole-v1", told))
    success = rows[:, COLUMNS.index("success")]
    assert success.tolist() == (rows[:, COLUMNS.index("length")] >= 60).tolist() and 0 < success.mean() < 1


def test_recorded_steps_are_the_episodes(policy):
    episodes = run_episodes(policy, make_vector_env(CARTPOLE, 4, "total"), SEEDS, record=True)
    steps = episodes.steps
    for index, row in enumerate(episodes.table):
        mine = {key: value[steps["episode"] == index] for key, value in steps.items()}
        assert mine["step"].tolist() == list(range(int(row[COLUMNS.index("length")])))
        assert mine["basic_reward"].sum() == pytest.approx(row[COLUMNS.index("basic")], rel=1e-5)
        np.testing.assert_allclose(mine["reward"], mine["basic_reward"] + mine["add_on_reward"], rtol=1e-5)
        np.testing.assert_array_equal(mine["observation"][1:], mine["next_observation"][:-1])
        ends = mine["terminated"] | mine["truncated"]
        assert ends[-1] and not ends[:-1].any()
        start, _ = gym.make(CARTPOLE).reset(seed=int(row[0]))
        np.testing.assert_array_equal(mine["observation"][0], start)
    assert len(episodes.pictured) == len(steps["step"])
    np.testing.assert_allclose(np.sort(episodes.pictured), np.sort(steps["next_observation"][:, 0]), rtol=1e-6)
    assert run_episodes(policy, make_vector_env(CARTPOLE, 4, "total"), SEEDS).steps == {}


def test_summary_of_a_table_by_hand():
    table = np.array([[0, 2, 1.0, -1.0, 1, 0.5, 0.2], [1, 8, 3.0, -3.0, 0, 1.5, 0.4]])
    assert Episodes(table, np.empty(0)).summary("x", omega=2.0) == pytest.approx(
        {
            "episodes": 2,
            "success_rate": 0.5,
            "basic_return_mean": 2.0,
            "basic_return_std": 1.0,
            "add_on_return_mean": -2.0,
            "add_on_return_std": 1.0,
            "total_return_mean": 2.0,
            "total_return_std": 1.0,
            "x_mean": 1.0,
            "x_std": 0.5,
            "episode_length_mean": 5.0,
            "kl_to_prior": 0.06,
            "successful_basic_return_mean": 1.0,
            "successful_basic_return_std": 0.0,
            "successful_add_on_return_mean": -1.0,
            "successful_add_on_return_std": 0.0,
            "successful_total_return_mean": 1.0,
            "successful_total_return_std": 0.0,
            "successful_x_mean": 0.5,
            "successful_x_std": 0.0,
        }
    )
    failed = Episodes(table[1:], np.empty(0)).summary("x")
    assert failed["x_mean"] == 1.5 and failed["successful_x_mean"] is None and failed["successful_x_std"] is None


class ReportsAtTheEnd(gym.Env[Any, Any]):
    """Episodes of 1 to 5 steps; even seeds report success when they end, and nothing is reported otherwise."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.left, self.tells = 1 + (seed or 0) % 5, (seed or 0) % 2 == 0
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        info = {"is_success": True} if self.tells and self.left == 0 else {}
        return np.zeros(4, np.float32), 1.0, self.left == 0, False, info


@pytest.mark.parametrize("num_envs", [1, 2, 3, 11])
def test_an_episode_without_a_report_is_a_failure_once_another_reported(policy, movement, register, num_envs):
    """Whichever environments run beside each other, and on whichever rank the episodes ran."""
    gym.register("tests/ReportsAtTheEnd-v0", ReportsAtTheEnd)
    try:
        env = make_vector_env(register("tests/ReportsAtTheEnd-v0", movement), num_envs, "basic")
        episodes = run_episodes(policy, env, SEEDS)
        silent = run_episodes(policy, env, SEEDS[1::2])
    finally:
        gym.registry.pop("tests/ReportsAtTheEnd-v0")
    expected = [1.0 if seed % 2 == 0 else np.nan for seed in SEEDS]
    np.testing.assert_array_equal(episodes.table[:, COLUMNS.index("success")], expected)
    assert episodes.summary(None)["success_rate"] == pytest.approx(6 / 11)
    assert silent.summary(None)["success_rate"] is None
    ranks = [Episodes(episodes.table[rank::2], np.empty(0)) for rank in range(2)]
    assert [rank.summary(None)["success_rate"] for rank in ranks] == [1.0, None]
    gathered = Episodes(np.concatenate([rank.table for rank in ranks]), np.empty(0))
    assert gathered.summary(None)["success_rate"] == pytest.approx(6 / 11)


class Endless(ReportsAtTheEnd):
    """Odd seeds never end."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, *rest = super().step(action)
        return observation, reward, terminated and self.tells, *rest


def test_an_episode_that_does_not_end(policy, movement, register):
    gym.register("tests/Endless-v0", Endless)
    try:
        env = make_vector_env(register("tests/Endless-v0", movement), 3, "basic")
        with pytest.raises(EnvironmentContractError, match=r"my/Task, seed 1000003: .* not ended after 50 steps"):
            run_episodes(policy, env, [1_000_000, 1_000_002, 1_000_004, 1_000_003], max_steps=50, name="my/Task")
        assert len(run_episodes(policy, env, [1_000_004], max_steps=5).table) == 1
    finally:
        gym.registry.pop("tests/Endless-v0")


class Planner:
    """Anything that can decide: pushes the pole's way, from the environments' states."""

    needs_state = True

    def decide(self, observation: Any, state: Any = None) -> Decision:
        return Decision((np.stack(state["state"])[:, 2] > 0).astype(np.int64))


@pytest.mark.parametrize("num_envs", [1, 4])
def test_whatever_can_decide_is_evaluated(num_envs):
    episodes = run_episodes(Planner(), make_vector_env(CARTPOLE, num_envs, "add_on"), SEEDS[:4])
    for seed, length in episodes.table[:, :2]:
        env = gym.make(CARTPOLE)
        observation, _ = env.reset(seed=int(seed))
        done, steps = False, 0
        while not done:
            observation, _, terminated, truncated, _ = env.step(int(observation[2] > 0))
            done, steps = terminated or truncated, steps + 1
        assert steps == length
    assert episodes.summary(None)["kl_to_prior"] is None


def test_the_divergence_of_laws_without_common_actions_is_infinite(policy):
    class Apart:
        needs_state = False

        def decide(self, observation: Any, state: Any = None) -> Decision:
            return Decision(policy.act(observation), np.full(len(observation), np.inf))

    summary = run_episodes(Apart(), make_vector_env(CARTPOLE, 2, "add_on"), SEEDS[:2]).summary(None)
    assert summary["kl_to_prior"] == np.inf
