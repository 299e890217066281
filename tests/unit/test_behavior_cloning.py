"""Behaviour cloning: its loss, early stopping, the fallback off the data, and resume."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import pytorch_lightning as pl
import torch
from tensordict import TensorDict

from rql_lightning.algorithms import GAIL, BehaviorCloning, IQLearn, SoftQLearning
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.algorithms.behavior_cloning import unlike_states
from rql_lightning.algorithms.optimization import VectorOptimizer
from rql_lightning.callbacks import AtomicCheckpointIO, FrameCheckpoint
from rql_lightning.data import DemonstrationDataModule, DemonstrationReplayDataModule, ReplayDataModule
from rql_lightning.data.demonstrations import Demonstrations
from rql_lightning.errors import CheckpointError, ConfigurationError
from rql_lightning.loading import load_policy

CARTPOLE = "rql_lightning/CartPole-v0"


def expert(observation: torch.Tensor) -> torch.Tensor:
    """Logits of the policy that made the demonstrations, [..., 2]."""
    push = 2.0 * observation[..., 2] + observation[..., 3]
    return torch.stack([-push, push], dim=-1)


def demonstrations(episodes: int = 40, steps: int = 25) -> Demonstrations:
    """Episodes of random states with the expert's actions."""
    generator = torch.Generator().manual_seed(1)
    observation = torch.randn(episodes * steps, 4, generator=generator)
    action = torch.multinomial(expert(observation).softmax(dim=-1), 1, generator=generator).squeeze(-1)
    last = torch.arange(episodes * steps) % steps == steps - 1
    successor = {"observation": observation.roll(-1, 0), "terminated": torch.zeros_like(last), "truncated": last}
    count = [episodes * steps]
    transitions = TensorDict(
        {"observation": observation, "action": action, "next": TensorDict(successor, count)}, count
    )
    spaces = (gym.make(CARTPOLE).observation_space, gym.spaces.Discrete(2))
    return Demonstrations(
        transitions, torch.arange(episodes).repeat_interleave(steps), *spaces, CARTPOLE, "made up", {}
    )


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``(**settings) →`` a data module with these demonstrations."""
    monkeypatch.setattr("rql_lightning.data.imitation.load_demonstrations", lambda source: demonstrations())

    def make(**settings: Any) -> DemonstrationDataModule:
        small = {"updates_per_batch": 8, "batch_size": 64, "total_frames": 8 * 64 * 30, "demonstrations": "made up"}
        return DemonstrationDataModule(env=CARTPOLE, **{**small, **settings})

    return make


def fit(algorithm: BehaviorCloning, data: Any, folder: Path, ckpt_path: Path | None = None, every: int = 10**9) -> Path:
    torch.manual_seed(3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    callbacks, plugins = [FrameCheckpoint(every)], [AtomicCheckpointIO()]
    trainer = pl.Trainer(default_root_dir=folder, max_epochs=1, callbacks=callbacks, plugins=plugins, **quiet)
    trainer.fit(algorithm, datamodule=data, ckpt_path=ckpt_path)
    (path,) = folder.rglob("last.ckpt")
    return path


def built(**settings: Any) -> BehaviorCloning:
    algorithm = BehaviorCloning(**{"hidden_sizes": [16], **settings})
    space = gym.spaces.Box(-1, 1, (4,))
    algorithm.build(space, gym.spaces.Discrete(2), CARTPOLE)
    return algorithm


def minibatch(observation: torch.Tensor, action: torch.Tensor) -> Minibatch:
    zeros = torch.zeros(len(observation))
    return Minibatch(observation, action, zeros, zeros.bool(), observation)


# -- the loss --------------------------------------------------------------------------------------------------------


def test_the_terms_of_the_loss_by_hand():
    algorithm = built(entropy_weight=0.3, fallback_weight=0.2)
    torch.manual_seed(0)
    observation, action = torch.randn(6, 4), torch.randint(2, (6,))
    probabilities = algorithm.policy.distribution_parameters(observation).softmax(dim=-1)
    losses = algorithm.losses(minibatch(observation, action))
    expected = -sum(math.log(row[a]) for row, a in zip(probabilities.tolist(), action.tolist(), strict=True)) / 6
    assert losses["imitation"].item() == pytest.approx(expected, rel=1e-5)
    entropy = -(probabilities * probabilities.log()).sum(dim=-1).mean()
    assert losses["entropy"].item() == pytest.approx(-0.3 * entropy.item(), rel=1e-5)
    unlike = torch.stack([algorithm.losses(minibatch(observation, action))["fallback"] for _ in range(60)]).mean()
    assert unlike.item() > 0.2 * math.log(2.0), "the uniform policy alone has the least cross-entropy, log 2"


def test_states_unlike_the_demonstrated_ones_have_the_same_columns_stretched():
    torch.manual_seed(0)
    code = torch.randn(50, 3) * torch.tensor([1.0, 5.0, 0.1]) + 2.0
    unlike = unlike_states(code, 3.0)
    stretched = code.mean(0) + 3.0 * (code - code.mean(0))
    assert torch.allclose(unlike.sort(dim=0).values, stretched.sort(dim=0).values, atol=1e-5)
    assert not torch.allclose(unlike, stretched)


def test_weight_decay_is_that_of_adamw():
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    optimizer = VectorOptimizer([ours.parameters()], 0.01, weight_decay=0.1)
    oracle = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(5):
        batch = torch.randn(7, 5)
        optimizer.differentiate(ours(batch).square().sum(), list(ours.parameters()))
        optimizer.step()
        oracle.zero_grad()
        theirs(batch).square().sum().backward()
        oracle.step()
    for pair in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(*pair, atol=1e-6)


# -- training --------------------------------------------------------------------------------------------------------


def test_it_recovers_the_policy_that_made_the_demonstrations(data, tmp_path):
    algorithm = BehaviorCloning(hidden_sizes=[32], learning_rate=3e-3, validate_every=2)
    policy = load_policy(fit(algorithm, data(), tmp_path))
    observation = torch.randn(500, 4, generator=torch.Generator().manual_seed(9))
    theirs = expert(observation).log_softmax(dim=-1)
    ours = policy.family.distribution(policy.distribution_parameters(observation)).logits
    divergence = (theirs.exp() * (theirs - ours)).sum(dim=-1).mean()
    untrained = (theirs.exp() * (theirs - math.log(0.5))).sum(dim=-1).mean()
    assert divergence < 0.15 * untrained
    assert policy.task == CARTPOLE and policy.prior is None


def test_the_best_weights_on_held_out_episodes_are_kept_and_training_stops(data, tmp_path):
    algorithm = BehaviorCloning(hidden_sizes=[256, 256], learning_rate=1e-2, validate_every=1, patience=3)
    module = data(episodes=10, total_frames=8 * 64 * 500)
    seen = []
    original = algorithm.held_out_log_prob
    algorithm.held_out_log_prob = lambda: seen.append(original()) or seen[-1]  # type: ignore[method-assign]
    path = fit(algorithm, module, tmp_path)
    *during, final = seen  # the last of them after training, of the weights that were kept
    assert module.frames < module.total_frames and len(during) >= 4
    assert max(during) > during[-1], "it overfits, or the test shows nothing"
    assert max(during[-3:]) <= during[-4] == max(during)
    assert final == pytest.approx(max(during), abs=1e-5)
    weights = torch.load(path, weights_only=True)["state_dict"]
    name = "policy.network.0.weight"
    assert torch.equal(weights[name], algorithm.state_dict()[name])


def test_without_held_out_episodes_the_budget_is_spent(data, tmp_path):
    module = data(validation_fraction=0.0, total_frames=8 * 64 * 3)
    algorithm = BehaviorCloning(hidden_sizes=[8], validate_every=1, patience=1)
    fit(algorithm, module, tmp_path)
    assert module.frames == module.total_frames and algorithm.updates == 24 and module.held_out is None


def test_the_fallback_makes_the_policy_wide_off_the_data_and_hardly_changes_it_on_them(data, tmp_path):
    def trained(weight: float) -> tuple[float, float]:
        algorithm = BehaviorCloning(hidden_sizes=[32], learning_rate=3e-3, fallback_weight=weight, fallback_spread=8.0)
        policy = load_policy(fit(algorithm, data(), tmp_path / f"{weight}"))
        near = torch.randn(500, 4, generator=torch.Generator().manual_seed(9))
        entropy = policy.distribution(8.0 * near).entropy().mean().item()
        return entropy, policy.log_prob_of(near, expert(near).argmax(dim=-1)).mean().item()

    (narrow, sure), (wide, less_sure) = trained(0.0), trained(0.1)
    assert wide > narrow + 0.2 and less_sure > sure - 0.15


def test_resume_is_exact(data, tmp_path, monkeypatch):
    def algorithm() -> BehaviorCloning:
        return BehaviorCloning(hidden_sizes=[8], fallback_weight=0.1, validate_every=2, patience=None)

    save = FrameCheckpoint.save

    def save_and_keep(self: FrameCheckpoint, trainer: pl.Trainer) -> Path:
        path = save(self, trainer)
        if not (tmp_path / "half.ckpt").exists():
            shutil.copy(path, tmp_path / "half.ckpt")
        return path

    monkeypatch.setattr(FrameCheckpoint, "save", save_and_keep)
    straight, resumed = algorithm(), algorithm()
    fit(straight, data(), tmp_path / "straight", every=8 * 64 * 15)
    torch.manual_seed(11)  # of no consequence
    fit(resumed, data(), tmp_path / "resumed", tmp_path / "half.ckpt")
    assert resumed.updates == straight.updates == 240
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_other_demonstrations_are_not_resumed(data, tmp_path):
    path = fit(BehaviorCloning(hidden_sizes=[8]), data(total_frames=8 * 64), tmp_path / "first")
    with pytest.raises(
        CheckpointError, match=r"data\.demonstrations: found \[18, 450, 50, .*expected \[36, 900, 100, "
    ):
        fit(BehaviorCloning(hidden_sizes=[8]), data(episodes=20), tmp_path / "second", path)


@pytest.mark.parametrize("make", [BehaviorCloning, IQLearn, GAIL])
def test_a_data_module_without_what_is_learnt_from_is_refused(tmp_path, make):
    algorithm = GAIL(SoftQLearning(hidden_sizes=[8])) if make is GAIL else make(hidden_sizes=[8])
    message = rf"data\.class_path: found 'ReplayDataModule', expected rql_lightning\..* for {make.__name__}"
    with pytest.raises(ConfigurationError, match=message):
        fit(algorithm, ReplayDataModule(env=CARTPOLE), tmp_path)


def test_gail_needs_frames_and_cloning_does_not_take_them(data, tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"found 'DemonstrationDataModule', expected .*ReplayDataModule, for GAIL"
    ):
        fit(GAIL(SoftQLearning(hidden_sizes=[8])), data(), tmp_path)
    online = DemonstrationReplayDataModule(env=CARTPOLE, demonstrations="made up")
    with pytest.raises(
        ConfigurationError, match=r"found 'DemonstrationReplayDataModule', expected .*DataModule, for Beh"
    ):
        fit(BehaviorCloning(hidden_sizes=[8]), online, tmp_path)


def test_a_run_is_not_resumed_with_a_data_module_of_another_class(data, tmp_path):
    path = fit(IQLearn(hidden_sizes=[8]), data(total_frames=8 * 64), tmp_path / "first")
    online = DemonstrationReplayDataModule(env=CARTPOLE, demonstrations="made up", total_frames=20_000)
    with pytest.raises(
        CheckpointError, match=r"data\.class_path: found DemonstrationReplayDataModule, expected the class"
    ):
        fit(IQLearn(hidden_sizes=[8]), online, tmp_path / "second", path)


@pytest.mark.parametrize("online", [False, True])
def test_inverse_learning_resumes_exactly(data, tmp_path, online):
    def module(total_frames: int) -> Any:
        if not online:
            return data(total_frames=total_frames * 8)
        small = {"num_envs": 4, "frames_per_batch": 16, "batch_size": 8, "updates_per_batch": 4, "warm_up_frames": 0}
        return DemonstrationReplayDataModule(env=CARTPOLE, demonstrations="made up", total_frames=total_frames, **small)

    def algorithm() -> IQLearn:
        settings = {"learning_rate_schedule": "constant", "epsilon_fraction": 0.0, "target_update_interval": 3}
        return IQLearn(hidden_sizes=[8], **settings)

    straight, half, resumed = algorithm(), algorithm(), algorithm()
    fit(straight, module(512), tmp_path / "straight")
    path = fit(half, module(256), tmp_path / "half")
    fit(resumed, module(512), tmp_path / "resumed", path)
    assert resumed.updates == straight.updates > half.updates
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_more_episodes_than_there_are(data, tmp_path):
    with pytest.raises(ConfigurationError, match=r"data\.episodes: found 41, expected at most 40"):
        fit(BehaviorCloning(hidden_sizes=[8]), data(episodes=41), tmp_path)


# -- demonstrations in training batches ------------------------------------------------------------------------------


def test_no_reward_reaches_the_algorithm(data, tmp_path):
    class Watching(BehaviorCloning):
        def update(self, batch: Any) -> dict[str, float]:
            self.keys = set(batch.keys(include_nested=True, leaves_only=True))
            return super().update(batch)

    algorithm = Watching(hidden_sizes=[8])
    fit(algorithm, data(total_frames=8 * 64), tmp_path)
    named = {key if isinstance(key, str) else ".".join(key) for key in algorithm.keys}
    assert named == {"observation", "action", "next.observation", "next.terminated", "next.truncated"}


def test_episodes_are_not_divided_by_the_split(data):
    module = data()
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.datamodule, module.trainer = module, trainer
    trainer.state.fn = "fit"
    module.setup("fit")
    training, held_out = module.training, module.held_out
    assert (training.episodes, held_out.episodes) == (36, 4) and len(training) + len(held_out) == 1000
    first = {tuple(row.tolist()) for row in training.transitions["observation"]}
    assert not first & {tuple(row.tolist()) for row in held_out.transitions["observation"]}
    assert all((part.episode.bincount() == 25).all() for part in (training, held_out))
