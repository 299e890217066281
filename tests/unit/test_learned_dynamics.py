"""A learned model: what the ensemble learns, its held-out errors, files, and planning with it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from gymnasium.vector import SyncVectorEnv
from tensordict import TensorDict

from rql_lightning.algorithms import DynamicsEnsemble, ResidualMCTS
from rql_lightning.algorithms.dynamics_errors import held_out_errors
from rql_lightning.callbacks import AtomicCheckpointIO, EvaluationCallback, FrameCheckpoint
from rql_lightning.data import DemonstrationDataModule, TaskDataModule
from rql_lightning.data.demonstrations import Demonstrations
from rql_lightning.envs import highway
from rql_lightning.envs.registration import make_vector_env
from rql_lightning.errors import CheckpointError, ConfigurationError, EnvironmentContractError, SpaceMismatchError
from rql_lightning.loading import CheckpointPrior
from rql_lightning.planning import LearnedDynamics
from rql_lightning.planning.ensemble import DynamicsNetwork, load_dynamics
from rql_lightning.planning.reward import AddOnReward

CARTPOLE = "rql_lightning/CartPole-v0"
BOX, TWO = gym.spaces.Box(-10.0, 10.0, (4,)), gym.spaces.Discrete(2)
LINEAR = torch.tensor([[0.9, 0.1, 0.0, 0.0], [-0.1, 0.9, 0.0, 0.0], [0.0, 0.0, 1.0, 0.1], [0.0, 0.0, -0.1, 0.8]])
PUSH = 0.1 * torch.tensor([[0.1, 0.0, 0.2, 0.0], [-0.1, 0.3, 0.0, -0.2]])


def linear(observation: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Successors and terminations of a linear system, which ends where its first number exceeds 0.1."""
    following = observation @ LINEAR.T + PUSH[action]
    return following, following[:, 0] > 0.1


def recorded(episodes: int = 60, steps: int = 20) -> Demonstrations:
    """Episodes of the linear system with random actions."""
    generator = torch.Generator().manual_seed(1)
    rows: list[tuple[torch.Tensor, ...]] = []
    for episode in range(episodes):
        state = 0.1 * torch.randn(1, 4, generator=generator).clamp(-2, 2)
        for step in range(steps):
            action = torch.randint(2, (1,), generator=generator)
            following, terminated = linear(state, action)
            truncated = torch.tensor([step == steps - 1])
            rows.append((state, action, following, terminated, truncated, torch.tensor([episode])))
            state = following
            if terminated:
                break
    observation, action, following, terminated, truncated, episode = (
        torch.cat(part) for part in zip(*rows, strict=True)
    )
    successor = {"observation": following, "terminated": terminated, "truncated": truncated}
    count = [len(action)]
    transitions = TensorDict(
        {"observation": observation, "action": action, "next": TensorDict(successor, count)}, count
    )
    return Demonstrations(transitions, episode, BOX, TWO, CARTPOLE, "made up", {})


def fit(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    updates: int = 600,
    evaluate: bool = False,
    ckpt_path: Path | None = None,
    **settings: Any,
) -> Any:
    """Train on the linear system; the ensemble, and the checkpoint."""
    monkeypatch.setattr("rql_lightning.data.imitation.load_demonstrations", lambda source: recorded())
    torch.manual_seed(0)
    data = DemonstrationDataModule(
        env=CARTPOLE, demonstrations="made up", updates_per_batch=50, batch_size=160, total_frames=updates * 160
    )
    ensemble = DynamicsEnsemble(**{"members": 5, "hidden_sizes": [32, 32], "learning_rate": 3e-3, **settings})
    callbacks = [FrameCheckpoint(10**9), *([EvaluationCallback(every_n_frames=160 * 100)] if evaluate else [])]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=1, callbacks=callbacks, plugins=[AtomicCheckpointIO()], **quiet
    )
    trainer.fit(ensemble, datamodule=data, ckpt_path=ckpt_path)
    (path,) = folder.rglob("last.ckpt")
    return ensemble, path


def network(observation_space: gym.Space = BOX, action_space: gym.Space = TWO, **settings: Any) -> DynamicsNetwork:
    torch.manual_seed(0)
    made = DynamicsNetwork(observation_space, action_space, **{"members": 3, "hidden_sizes": [16], **settings})
    size = made.size
    made.normalise(torch.randn(50, size), torch.randn(50, size))
    return made.requires_grad_(False)


def vector_env(space: gym.Space = BOX, action_space: gym.Space = TWO) -> Any:
    class Still(gym.Env):
        observation_space, customization = space, None

        def __init__(self) -> None:
            self.action_space = action_space

    return SyncVectorEnv([Still, Still])


def reward(observation: Any, action: Any, next_observation: Any, info: Any) -> float:
    return float(next_observation[0])


# -- learning --------------------------------------------------------------------------------------------------------


def test_a_linear_system_is_learned(tmp_path, monkeypatch):
    before, _ = fit(tmp_path / "short", monkeypatch, updates=50)
    after, path = fit(tmp_path / "long", monkeypatch, evaluate=True)
    early, late = before.summary(), after.summary()
    assert late["held_out_relative_error"] < 0.1 < early["held_out_relative_error"]
    assert late["held_out_open_loop_relative_error"] < 0.1 < early["held_out_open_loop_relative_error"]
    assert (
        late["held_out_termination_log_loss"] < 0.1 and late["held_out_disagreement"] < early["held_out_disagreement"]
    )
    metrics = json.loads(next(tmp_path.rglob("metrics.json")).read_text())
    assert metrics["held_out_error"] == pytest.approx(late["held_out_error"]) and metrics["updates"] == 600
    # The file holds the best weights.
    observation, action = 0.05 * torch.randn(20, 4), torch.randint(2, (20,))
    expected = after.policy.successors(observation, action)
    assert all(map(torch.equal, load_dynamics(path).successors(observation, action), expected))
    error = (expected[0].mean(0) - linear(observation, action)[0]).abs().mean()
    assert error < 0.01


def test_resume_is_exact_and_of_the_same_networks(tmp_path, monkeypatch):
    settings: dict[str, Any] = {"learning_rate_schedule": "constant", "validate_every": 10**6}
    whole, _ = fit(tmp_path / "whole", monkeypatch, 200, **settings)
    _, half = fit(tmp_path / "half", monkeypatch, 100, **settings)
    resumed, _ = fit(tmp_path / "resumed", monkeypatch, 200, ckpt_path=half, **settings)
    assert resumed.updates == whole.updates == 200
    assert all(map(torch.equal, resumed.policy.state_dict().values(), whole.policy.state_dict().values()))
    with pytest.raises(CheckpointError, match="found members 5, expected the config's 4"):
        fit(tmp_path / "other", monkeypatch, 200, ckpt_path=half, members=4)


def test_errors_by_hand():
    """Of networks that predict no change and a probability of 1/2, or of 0.9."""
    still = network(members=2)
    for part in (*still.weights, *still.biases):
        part.zero_()
    episodes = recorded(episodes=6)
    transitions = episodes.transitions
    change = transitions["next", "observation"] - transitions["observation"]
    result = held_out_errors(still, episodes, steps=3)
    assert result["held_out_error"] == pytest.approx(change.abs().mean().item(), rel=1e-5)
    assert result["held_out_relative_error"] == pytest.approx(1.0)
    assert result["held_out_open_loop_relative_error"] == pytest.approx(1.0)
    assert result["held_out_disagreement"] == 0.0
    assert result["held_out_termination_log_loss"] == pytest.approx(np.log(2.0), rel=1e-5)
    assert "held_out_termination_precision" not in result and result["held_out_termination_recall"] == 0.0
    distances = [
        (transitions["next", "observation"][i + 2] - transitions["observation"][i]).abs().mean()
        for i in range(len(episodes) - 2)
        if episodes.episode[i] == episodes.episode[i + 2]
    ]
    assert result["held_out_open_loop_error"] == pytest.approx(float(np.mean(distances)), rel=1e-5)
    still.biases[-1][..., -1] = float(np.log(9.0))
    share = transitions["next", "terminated"].float().mean().item()
    result = held_out_errors(still, episodes, steps=1_000)
    assert result["held_out_termination_precision"] == pytest.approx(share, rel=1e-5)
    assert result["held_out_termination_recall"] == 1.0 and "held_out_open_loop_error" not in result


def test_losses_by_hand():
    ensemble = DynamicsEnsemble(members=2, hidden_sizes=[8], huber_delta=0.5, termination_weight=3.0)
    ensemble.build(BOX, TWO, CARTPOLE)
    for part in (*ensemble.policy.weights, *ensemble.policy.biases):
        part.data.zero_()
    observation, terminated = torch.zeros(2, 1, 4), torch.tensor([[1.0], [0.0]])
    following = torch.tensor([[[0.1, 0.0, 2.0, 0.0]], [[0.0, 0.0, 0.0, -1.0]]])
    terms = ensemble.losses(torch.zeros(2, 1, 6), observation, following, terminated)
    huber = 0.5 * 0.1**2 + 0.5 * (2.0 - 0.25) + 0.5 * (1.0 - 0.25)
    assert terms["change"].item() == pytest.approx(huber / 8 / 0.5, rel=1e-5)
    assert terms["termination"].item() == pytest.approx(3.0 * np.log(2.0), rel=1e-5)


# -- rows ------------------------------------------------------------------------------------------------------------

ROWS = gym.spaces.Box(-10.0, 10.0, (8,))


def test_rows_are_compared_with_the_cheapest_assignment_and_sorted():
    made = network(ROWS, rows=4, sorted_by=0)
    prediction = torch.tensor([[9.0, 9.0, 1.0, 0.0, 2.0, 0.0, 3.0, 5.0]])
    target = torch.tensor([[9.0, 9.0, 2.1, 0.0, 3.0, 5.0, 0.9, 0.0]])
    expected = torch.tensor([[9.0, 9.0, 0.9, 0.0, 2.1, 0.0, 3.0, 5.0]])
    assert torch.equal(made.matched(target, prediction), expected)
    unsorted = torch.tensor([[9.0, 9.0, 3.0, 1.0, -0.5, 2.0, 1.0, 3.0]])
    assert torch.equal(made.in_order(unsorted), torch.tensor([[9.0, 9.0, -0.5, 2.0, 1.0, 3.0, 3.0, 1.0]]))
    assert torch.equal(network(ROWS, rows=4).in_order(unsorted), unsorted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 3}, "model.rows: found 3, expected null, or from 2 to 7 and a divisor of the 8 numbers"),
        ({"rows": 4, "sorted_by": 2}, "model.sorted_by: found 2, expected null, or from 0 to 1"),
        ({"sorted_by": 0}, "model.sorted_by: found 0, expected null"),
    ],
)
def test_wrong_rows(settings, message):
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        network(ROWS, **settings)


# -- a model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [False, True])
@pytest.mark.parametrize("pessimism", [0.0, 2.0])
@pytest.mark.parametrize("rows", [None, 4])
def test_rows_of_a_batch_do_not_depend_on_each_other(draw, pessimism, rows):
    made = network(ROWS, rows=rows, sorted_by=None if rows is None else 1)
    model = LearnedDynamics.of(made, draw, pessimism=pessimism)
    model.attach(vector_env(ROWS), reward)
    generator = np.random.default_rng(0)
    state = model.read(None, generator.normal(size=(40, 8)).astype(np.float32))
    action, seeds = generator.integers(2, size=40), generator.integers(2**63, size=40).astype(np.uint64)
    state = model.reseed(state, seeds)
    together = model.step(state, action)
    for row in (0, 17, 39):
        alone = model.step({key: column[row : row + 1] for key, column in state.items()}, action[row : row + 1])
        assert np.array_equal(alone.observation[0], together.observation[row])
        assert alone.add_on_reward[0] == together.add_on_reward[row]
        assert alone.terminated[0] == together.terminated[row]
    assert model.deterministic is not draw and together.observation.dtype == np.float32


def test_steps_are_the_networks():
    made = network(ROWS, gym.spaces.Box(-2.0, 4.0, (2,)), rows=4, sorted_by=1)
    model = LearnedDynamics.of(made, pessimism=0.5)
    model.attach(vector_env(ROWS, made.action_space), reward)
    generator = np.random.default_rng(0)
    observation = generator.normal(size=(30, 8)).astype(np.float32)
    action = generator.uniform(-2, 4, size=(30, 2)).astype(np.float32)
    step = model.step({"observation": observation}, action)
    successors, probability = made.successors(torch.from_numpy(observation), torch.from_numpy(action))
    expected = made.in_order(successors.mean(0)).numpy()
    assert np.allclose(step.observation, expected, atol=1e-5)
    assert np.array_equal(step.terminated, (probability.mean(0) > 0.5).numpy())
    disagreement = (successors / made.change_scale).std(0, correction=0).mean(-1).numpy()
    assert np.allclose(step.add_on_reward, expected[:, 0] - 0.5 * disagreement, atol=1e-4)


def test_draws_are_of_members_and_of_the_probability():
    made = network(members=4)
    model = LearnedDynamics.of(made, draw=True)
    model.attach(vector_env(), reward)
    observation = np.zeros((4000, 4), np.float32)
    seeds = np.random.default_rng(0).integers(2**63, size=4000).astype(np.uint64)
    step = model.step(model.reseed({"observation": observation}, seeds), np.zeros(4000, int))
    different, counts = np.unique(step.observation, axis=0, return_counts=True)
    assert len(different) == 4 and counts.min() > 850
    probability = made.successors(torch.zeros(1, 4), torch.zeros(1))[1].mean().item()
    assert step.terminated.mean() == pytest.approx(probability, abs=0.04)


def test_observations_stay_within_bounds():
    narrow = gym.spaces.Box(-0.01, 0.01, (4,))
    model = LearnedDynamics.of(network(narrow))
    model.attach(vector_env(narrow), reward)
    step = model.step({"observation": np.zeros((5, 4), np.float32)}, np.zeros(5, int))
    assert np.abs(step.observation).max() == np.float32(0.01)


# -- the add-on reward -----------------------------------------------------------------------------------------------


def test_the_observed_add_on_reward_of_highway():
    env = make_vector_env("rql_lightning/Highway-v0", 16, "add_on")
    observation, _ = env.reset(seed=0)
    model = LearnedDynamics.of(network(env.single_observation_space, env.single_action_space))
    model.attach(env)
    generator, near = np.random.default_rng(0), 0
    for _ in range(15):
        following, own, terminated, truncated, _ = env.step(generator.integers(5, size=16))
        seen = model.reward(observation, np.zeros(16, int), following, {})
        lateral = following[:, 2] * 3
        settled = (np.abs(lateral - np.rint(lateral)) < 0.2) & ~terminated
        assert set(np.abs(seen)) <= {0.0, 0.25, 0.5}
        near += (np.abs(seen - own) < 1e-6)[settled].sum() / max(settled.sum(), 1)
        observation = following
        env.reset(options={"reset_mask": terminated | truncated}) if (terminated | truncated).any() else None
    assert near / 15 > 0.97


def test_the_careful_reward_of_a_learned_highway():
    observations = np.zeros((2, 25), np.float32)
    observations[:, 2] = 2 / 3
    reward = AddOnReward(highway.observed_careful_add_on_reward, vectorized=True)
    info = {"terminated": np.array([False, True])}
    assert reward(observations, np.zeros(2, int), observations, info) == pytest.approx([0.5, -4.5])
    crash = {"crashed": info["terminated"], "rewards": {"right_lane_reward": 1.0, "on_road_reward": 1.0}}
    assert highway.careful_add_on_reward(None, None, None, crash) == pytest.approx([0.5, -4.5])


def test_a_wrong_add_on_reward():
    model = LearnedDynamics.of(network())
    with pytest.raises(EnvironmentContractError, match=r"^add_on_reward: found none for"):
        model.attach(vector_env())
    needs_info = partial(highway.add_on_reward, right_lane=0.5)
    with pytest.raises(EnvironmentContractError, match=r"highway\.add_on_reward: .* looks up info\['rewards'\]"):
        model.attach(vector_env(), needs_info)

    def nan(observation, action, next_observation, info):
        return float("nan") if observation[0] != 0 else 0.0

    model.attach(vector_env(), nan)
    with pytest.raises(EnvironmentContractError, match=r"nan: found nan in the search at .*expected a finite number"):
        model.step({"observation": np.ones((2, 4), np.float32)}, np.zeros(2, int))


# -- files and spaces ------------------------------------------------------------------------------------------------


def test_wrong_spaces_and_settings():
    model = LearnedDynamics.of(network())
    with pytest.raises(SpaceMismatchError, match="dynamics networks in memory, observation space"):
        model.attach(vector_env(gym.spaces.Box(-1, 1, (3,))), reward)
    with pytest.raises(SpaceMismatchError, match="action space"):
        model.attach(vector_env(BOX, gym.spaces.Discrete(3)), reward)
    with pytest.raises(ConfigurationError, match=r"termination_threshold: found 1\.0, expected a number in \(0, 1\)"):
        LearnedDynamics.of(network(), termination_threshold=1.0)
    with pytest.raises(ConfigurationError, match="pessimism: found -1"):
        LearnedDynamics.of(network(), pessimism=-1.0)


def test_wrong_files(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.ckpt: found no such file"):
        LearnedDynamics(str(tmp_path / "nowhere.ckpt"))
    with pytest.raises(CheckpointError, match="found a checkpoint of SoftQLearning, expected one of DynamicsEnsemble"):
        LearnedDynamics("pretrained:highway-rl")
    torch.save({"rql_lightning": {"policy": network().describe()}, "state_dict": {}}, tmp_path / "no-weights.ckpt")
    with pytest.raises(CheckpointError, match=r"no-weights\.ckpt: found a file that holds no model of dynamics"):
        LearnedDynamics(str(tmp_path / "no-weights.ckpt"))


def test_it_cannot_act_and_needs_held_out_episodes(monkeypatch):
    with pytest.raises(ConfigurationError, match="found DynamicsEnsemble, which does not act"):
        pl.Trainer(logger=False, enable_progress_bar=False).test(
            DynamicsEnsemble(), datamodule=TaskDataModule(env=CARTPOLE)
        )
    monkeypatch.setattr("rql_lightning.data.imitation.load_demonstrations", lambda source: recorded())
    settings: dict[str, Any] = {"env": CARTPOLE, "demonstrations": "made up", "updates_per_batch": 1}
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "enable_checkpointing": False}
    with pytest.raises(ConfigurationError, match=r"data\.batch_size: found 32, expected a multiple of the 5 members"):
        pl.Trainer(**quiet).fit(DynamicsEnsemble(), datamodule=DemonstrationDataModule(**settings, batch_size=32))
    with pytest.raises(ConfigurationError, match=r"data\.validation_fraction: found 0, expected more than 0"):
        model = DynamicsEnsemble()
        pl.Trainer(**quiet).fit(
            model, datamodule=DemonstrationDataModule(**settings, batch_size=40, validation_fraction=0)
        )
    assert model.updates == 0, "it is refused before it is trained"


@pytest.mark.parametrize("draw", [False, True])
def test_planning_with_it_does_not_depend_on_the_batch(draw):
    env = make_vector_env(CARTPOLE, 3, "add_on")
    observation, _ = env.reset(seed=5)
    made = network(env.single_observation_space, env.single_action_space)
    settings = {"simulations": 20, "horizon": 4, "dynamics": LearnedDynamics.of(made, draw)}
    planner = ResidualMCTS(CheckpointPrior("pretrained:cartpole-rl"), **settings)
    together = planner.act(observation, env)
    assert env.single_action_space.contains(together[0])
    values = [planner.plan(row).q_residual for row in range(3)]
    for row in range(3):
        planner.planner.decide(observation[row : row + 1], {"observation": observation[row : row + 1]})
        assert np.array_equal(planner.plan().q_residual, values[row])
