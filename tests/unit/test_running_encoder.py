"""Running normalisation of observations: its statistics, where they are kept, and when they change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from rql_lightning import load_policy
from rql_lightning.algorithms import IQLearnSAC, ResidualSAC, SoftActorCritic
from rql_lightning.customizing.defaults import can_start_at
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import CheckpointError, ConfigurationError
from rql_lightning.export import export_policy
from rql_lightning.policies import Encoder
from rql_lightning.priors import CheckpointPrior

SPACE = gym.spaces.Box(np.array([-2.0, -np.inf, -np.inf]), np.array([4.0, np.inf, np.inf]), dtype=np.float64)
SMALL: dict[str, Any] = {"num_envs": 2, "frames_per_batch": 16, "updates_per_batch": 1, "batch_size": 4}
SMALL |= {"warm_up_frames": 0, "env": "tests/Drift-v0"}
NORMALIZED: dict[str, Any] = {"hidden_sizes": [8], "normalize_observations": True, "alpha": 0.1}


class Drift(gym.Env[Any, Any]):
    """The second and the third number are far from 0 and 1; the second grows with time."""

    observation_space = SPACE
    action_space = gym.spaces.Box(-1, 1, (1,))

    def _observation(self) -> np.ndarray:
        return np.array([1.0, 500.0 + 3 * self.time, 0.01 * self.np_random.normal()])

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self._observation(), float(action[0]), False, self.time >= 5, {}


class Kept(ReplayDataModule):
    """Keeps its collection when it is closed."""

    def _collect(self) -> Any:
        self.collection = super()._collect()
        return self.collection


def wish(observation: Any, action: Any, next_observation: Any, info: Any) -> float:
    return -abs(float(action[0]))


@pytest.fixture(autouse=True)
def drift() -> Any:
    gym.register("tests/Drift-v0", entry_point=Drift)
    yield
    gym.registry.pop("tests/Drift-v0", None)


@pytest.fixture
def trained(fit, tmp_path: Path) -> tuple[SoftActorCritic, Kept, Path]:
    algorithm, data = SoftActorCritic(**NORMALIZED), Kept(reward="basic", total_frames=64, **SMALL)
    fit(algorithm, data).save_checkpoint(tmp_path / "last.ckpt")
    return algorithm, data, tmp_path / "last.ckpt"


def quiet() -> pl.Trainer:
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **off)


def stream(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal((1.0, 1000.0, -3e-3), (0.5, 0.2, 1e-3), (rows, 3))


def normalized(observation: np.ndarray, seen: np.ndarray) -> np.ndarray:
    code = (observation - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-8)
    return np.column_stack([(observation[:, 0] - 1.0) / 3.0, np.clip(code[:, 1:], -10, 10)])


def test_statistics_are_those_of_the_whole_stream():
    encoder, seen = Encoder.scaled_of(SPACE, normalize=True), stream(1000)
    before = torch.tensor([[4.0, -5.0, 7.0]])
    torch.testing.assert_close(encoder(before), torch.tensor([[1.0, -5.0, 7.0]]), msg="nothing was observed yet")
    for part in np.split(seen, [1, 8, 8 + 256]):
        encoder.observe(torch.from_numpy(part).unflatten(0, (-1, 1)))
    assert encoder.count == 1000
    np.testing.assert_allclose(encoder.mean, seen.mean(0), rtol=1e-12)
    np.testing.assert_allclose(encoder.variance, seen.var(0), rtol=1e-9)
    new = stream(50, seed=1)
    new[0, 1:] = (1e6, -1e6)
    np.testing.assert_allclose(encoder(torch.from_numpy(new)), normalized(new, seen), rtol=1e-3, atol=1e-3)
    assert encoder(torch.from_numpy(new))[0, 1:].tolist() == [10.0, -10.0]


def test_ranks_share_the_statistics_of_all():
    parts, barrier, sent = (stream(300, seed=1), 5.0 + stream(300, seed=2)), Barrier(2), [torch.empty(0)] * 2

    def observe(rank: int) -> Any:
        def average(tensor: torch.Tensor) -> torch.Tensor:
            sent[rank] = tensor
            barrier.wait()
            result = (sent[0] + sent[1]) / 2
            barrier.wait()
            return result

        encoder = Encoder.scaled_of(SPACE, normalize=True)
        for part in np.split(parts[rank], 3):
            encoder.observe(torch.from_numpy(part), average, ranks=2)
        return encoder

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(observe, range(2))
    assert all(torch.equal(own, other) for own, other in zip(first.buffers(), second.buffers(), strict=True))
    assert first.count == 600
    np.testing.assert_allclose(first.mean, np.concatenate(parts).mean(0), rtol=1e-10)
    np.testing.assert_allclose(first.variance, np.concatenate(parts).var(0), rtol=1e-9)


def test_training_observes_each_frame_and_the_buffer_holds_it_as_it_came(trained):
    algorithm, data, _ = trained
    encoder, kept = algorithm.policy.encoder, data.collection.replay.storage.get(slice(0, 64))
    seen = kept["observation"].double().numpy()
    assert encoder.count == len(seen) == 64 and seen[:, 1].min() == 500
    np.testing.assert_allclose(encoder.mean, seen.mean(0), rtol=1e-12)
    np.testing.assert_allclose(encoder.variance, seen.var(0), rtol=1e-9)
    minibatch = algorithm.minibatches(data.collection.sample(1))
    assert minibatch.observation.abs().max() < 5 and minibatch.next_observation.abs().max() < 5
    following = kept["next", "observation"]
    expected = normalized(following.double().numpy(), seen)
    np.testing.assert_allclose(algorithm.policy.encoder(following), expected, rtol=1e-3, atol=1e-3)


def test_a_checkpoint_holds_the_statistics_and_evaluation_leaves_them(trained):
    algorithm, _, path = trained
    encoder = algorithm.policy.encoder
    observation, _ = Drift().reset(seed=7)
    loaded = load_policy(path)
    assert loaded.encoder.describe() == encoder.describe() and loaded.encoder.count == 64
    np.testing.assert_array_equal(loaded.act(observation), algorithm.policy.act(observation))
    action = np.array([0.3], np.float32)
    assert loaded.log_prob(observation, action) == algorithm.policy.log_prob(observation, action)
    other = SoftActorCritic(**NORMALIZED)
    data = ReplayDataModule(reward="basic", total_frames=64, **SMALL)
    quiet().test(other, datamodule=data, ckpt_path=path, verbose=False)
    assert other.policy.encoder.count == 64
    np.testing.assert_array_equal(other.policy.act(observation), loaded.act(observation))


def test_a_resumed_run_goes_on_from_the_statistics(trained):
    _, _, path = trained
    algorithm, data = SoftActorCritic(**NORMALIZED), ReplayDataModule(reward="basic", total_frames=96, **SMALL)
    with pytest.warns(UserWarning, match="no replay buffer"):
        quiet().fit(algorithm, datamodule=data, ckpt_path=path)
    assert algorithm.policy.encoder.count == 96


def customised(prior: Any, fit: Any, **settings: Any) -> ResidualSAC:
    own = {key: value for key, value in NORMALIZED.items() if key != "alpha"}
    algorithm = ResidualSAC(prior, omega_prime=0.1, alpha_hat=0.1, **own, **settings)
    data = ReplayDataModule(reward="add_on", add_on_reward=f"{__name__}.wish", total_frames=48, **SMALL)
    fit(algorithm, data)
    return algorithm


def test_a_customised_policy_is_its_prior_until_the_actor_learns(trained, fit):
    prior = CheckpointPrior(str(trained[2]))
    assert can_start_at(prior.policy, prior.observation_space)
    algorithm = customised(prior, fit, start_at_prior=True, critic_warm_up_updates=99)
    assert algorithm.updates == 3
    observation = np.array([[1.0, 506.0, 0.004], [1.0, 512.0, -0.02]])
    found = algorithm.policy.decide(observation)
    np.testing.assert_array_equal(found.action, prior.decide(observation).action)
    assert (np.asarray(found.kl_to_prior) == 0).all()


def test_statistics_that_came_with_weights_stay_also_when_the_actor_learns(trained, fit):
    prior = CheckpointPrior(str(trained[2]))
    numbers = {name: each.clone() for name, each in prior.policy.encoder.state_dict().items()}
    started = customised(prior, fit, start_at_prior=True).policy
    assert not torch.equal(started.network[0].weight, prior.policy.network[0].weight)
    further = SoftActorCritic(start_at=str(trained[2]), **NORMALIZED)
    fit(further, ReplayDataModule(reward="basic", total_frames=32, **SMALL))
    for policy in (started, further.policy, prior.policy):
        for name, each in policy.encoder.state_dict().items():
            torch.testing.assert_close(each, numbers[name], rtol=0, atol=0)
    assert customised(prior, fit).policy.encoder.count == 48


def test_what_does_not_fit_is_refused(trained, tmp_path):
    path = trained[2]
    plain = {**NORMALIZED, "normalize_observations": False}
    data = ReplayDataModule(reward="basic", total_frames=64, **SMALL)
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt: found model\.normalize_observations True, expected .* False"
    ):
        quiet().test(SoftActorCritic(**plain), datamodule=data, ckpt_path=path, verbose=False)
    Drift.observation_space = gym.spaces.Box(np.full(3, -np.inf), np.full(3, np.inf), dtype=np.float64)
    try:
        with pytest.raises(CheckpointError, match=r"found running .* numbers \[1, 2\] .*, expected \[0, 1, 2\]"):
            data = ReplayDataModule(reward="basic", total_frames=64, **SMALL)
            quiet().test(SoftActorCritic(**NORMALIZED), datamodule=data, ckpt_path=path, verbose=False)
    finally:
        Drift.observation_space = SPACE
    with pytest.raises(ConfigurationError, match=r"model\.start_at"):
        SoftActorCritic(start_at=str(path), **plain).build(SPACE, Drift.action_space, "tests/Drift-v0")
    with pytest.raises(TypeError, match="normalize_observations"):
        IQLearnSAC(**NORMALIZED)
    with pytest.raises(ConfigurationError, match=r"model\.normalize_observations: found 'yes'"):
        SoftActorCritic(normalize_observations="yes")
    pytest.importorskip("stable_baselines3")
    with pytest.raises(ConfigurationError, match="normalised observations"):
        export_policy(load_policy(path), tmp_path / "model.zip")
    description = load_policy(path).encoder.describe()
    for wrong in ([True], [1, 0, 1], "yes"):
        with pytest.raises(ValueError, match="running"):
            Encoder.from_description({**description, "running": wrong})


def test_without_an_unbounded_number_there_is_nothing_to_normalise():
    bounded = gym.spaces.Box(-2.0, 2.0, (3,))
    assert Encoder.scaled_of(bounded, normalize=True).describe() == Encoder.scaled_of(bounded).describe()
