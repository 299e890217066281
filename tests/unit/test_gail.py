"""GAIL: the discriminator's loss against TorchRL's, its rewards, absorbing states, and what the learner gets to see."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import pytorch_lightning as pl
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.objectives import GAILLoss

from rql_lightning import functional
from rql_lightning.algorithms import (
    GAIL,
    FrozenPolicy,
    IQLearn,
    ResidualSoftQLearning,
    SoftActorCritic,
    SoftQLearning,
)
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.callbacks import AtomicCheckpointIO, FrameCheckpoint
from rql_lightning.data import DemonstrationReplayDataModule, ReplayDataModule
from rql_lightning.errors import ConfigurationError
from rql_lightning.loading import CheckpointPrior, load_policy
from rql_lightning.networks import Discriminator

CARTPOLE = "rql_lightning/CartPole-v0"
BOX, DISCRETE, CONTINUOUS = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(4), gym.spaces.Box(-2, 2, (2,))
GAMMA = 0.9


def gail(actions: gym.Space[Any] = DISCRETE, **settings: Any) -> GAIL:
    torch.manual_seed(0)
    make = SoftQLearning if isinstance(actions, gym.spaces.Discrete) else SoftActorCritic
    algorithm = GAIL(make(hidden_sizes=[8], gamma=GAMMA, alpha=0.3), **settings)
    algorithm.build(BOX, actions, "a task")
    return algorithm


def minibatch(size: int, actions: gym.Space[Any] = DISCRETE) -> Minibatch:
    observation, ends = torch.rand(2, size, 3), torch.rand(2, size) < 0.5
    action = torch.randint(4, (2, size)) if actions is DISCRETE else torch.rand(2, size, 2) * 2 - 1
    return Minibatch(observation, action, torch.zeros(2, size), ends, observation)


# -- rewards ---------------------------------------------------------------------------------------------------------


def test_rewards_from_the_probability_that_a_step_was_demonstrated():
    probability = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    logit = (probability / (1 - probability)).log()
    torch.testing.assert_close(functional.imitation_reward(logit, "gail"), -(1 - probability).log())
    torch.testing.assert_close(functional.imitation_reward(logit, "negative"), probability.log())
    torch.testing.assert_close(functional.imitation_reward(logit, "logit"), probability.log() - (1 - probability).log())
    extreme = torch.tensor([-1e4, 1e4])
    assert all(functional.imitation_reward(extreme, kind).isfinite().all() for kind in ("gail", "negative", "logit"))
    assert all(functional.imitation_reward(logit, kind).diff().gt(0).all() for kind in ("gail", "negative", "logit"))


@pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS])
def test_rewards_are_those_of_the_current_discriminator(actions):
    algorithm, batch = gail(actions), minibatch(5, actions)
    reward = algorithm.reward(TensorDict(), batch)
    assert reward.shape == (2, 5) and not reward.requires_grad
    with torch.no_grad():
        algorithm.discriminator.network[-1].bias += 1.0
    torch.testing.assert_close(algorithm.reward(TensorDict(), batch), reward + 1.0)


def test_the_reward_of_an_absorbing_state_is_worth_its_discounted_sum():
    """In place of V(terminal) = 0: r + γ V_abs, with V_abs = r_abs + γ V_abs, summed up step by step."""
    algorithm, batch = gail(absorbing_states=True), minibatch(6)
    inputs = algorithm.inputs(batch)
    assert inputs.shape == (2, 6, 3 + 4 + 1) and bool((inputs[..., -1] == 0).all())
    absorbing = torch.tensor([0.0] * 7 + [1.0])
    plain = algorithm.discriminator(inputs)
    for_ever = sum(GAMMA**step for step in range(1, 2000)) * algorithm.discriminator(absorbing)
    expected = plain + batch.terminated * for_ever
    torch.testing.assert_close(algorithm.reward(TensorDict(), batch), expected.detach(), rtol=1e-4, atol=1e-5)


def test_the_absorbing_state_is_weighted_by_the_ends_of_episodes():
    algorithm = gail(absorbing_states=True)
    inputs, weights = algorithm._with_absorbing(torch.rand(4, 8), torch.tensor([True, False, True, False]))
    assert inputs.shape == (5, 8) and weights.tolist() == pytest.approx([1, 1, 1, 1, 2 * GAMMA / (1 - GAMMA)])
    assert gail()._with_absorbing(torch.rand(4, 7), torch.ones(4, dtype=torch.bool))[0].shape == (4, 7)


# -- the discriminator -----------------------------------------------------------------------------------------------


class Logit(torch.nn.Module):
    """The discriminator as TorchRL's loss calls it."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self.discriminator(torch.cat([observation, action], dim=-1)).unsqueeze(-1)


@pytest.mark.parametrize("regularization", ["none", "gradient_penalty"])
def test_loss_and_gradient_are_torchrls(regularization, monkeypatch):
    algorithm = gail(CONTINUOUS, regularization=regularization, gradient_penalty=0.7)
    expert, policy = torch.rand(16, 5), torch.rand(16, 5) - 0.5
    network = TensorDictModule(Logit(algorithm.discriminator), ["observation", "action"], ["d_logits"])
    oracle = GAILLoss(network, use_grad_penalty=regularization != "none", gp_lambda=0.7)
    oracle.loss_function = torch.nn.BCEWithLogitsLoss()  # its own takes probabilities, whose gradients are others
    names = ("observation", "action", "collector_observation", "collector_action")
    parts = (*expert.split([3, 2], dim=-1), *policy.split([3, 2], dim=-1))
    torch.manual_seed(5)
    expected = oracle(TensorDict(dict(zip(names, parts, strict=True)), [16]))["loss"]
    torch.manual_seed(5)
    noise = torch.cat([torch.distributions.Uniform(0.0, 1.0).sample((16, size)) for size in (3, 2)], dim=-1)
    monkeypatch.setattr(torch, "rand_like", lambda _: noise)
    losses, metrics = algorithm.discriminator_losses(expert, policy, torch.ones(16), torch.ones(16))
    assert set(losses) == {"discriminator_loss", regularization} - {"none"}
    total = torch.stack(list(losses.values())).sum()
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)  # by 1e-6, as the variance is never 0
    held = {key[-2:]: value for key, value in oracle.discriminator_network_params.items(True, True)}
    for name, parameter in algorithm.discriminator.network.named_parameters():
        (own,), (other,) = (
            torch.autograd.grad(*pair, retain_graph=True)
            for pair in ((total, parameter), (expected, held[tuple(name.split("."))]))
        )
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)
    assert 0 <= metrics["accuracy_expert"] <= 1 and 0 < metrics["discriminator_entropy"] <= math.log(2) + 1e-6


def test_the_gradient_penalty_of_a_linear_discriminator_by_hand():
    torch.manual_seed(0)
    discriminator = Discriminator(3, [4])
    discriminator.network = torch.nn.Sequential(torch.nn.Linear(3, 1))
    discriminator.variance.copy_(torch.tensor([4.0, 1.0, 9.0]))
    expected = (discriminator.network[0].weight.norm() - 1.0) ** 2
    penalty = discriminator.gradient_penalty(torch.rand(7, 3))
    torch.testing.assert_close(penalty, expected)
    (gradient,) = torch.autograd.grad(penalty, discriminator.network[0].weight)
    assert gradient.abs().sum() > 0
    algorithm = gail(CONTINUOUS, gradient_penalty=0.7)
    inputs = torch.rand(16, 5)
    losses, _ = algorithm.discriminator_losses(inputs, inputs, torch.ones(16), torch.ones(16))
    torch.testing.assert_close(losses["gradient_penalty"], 0.7 * algorithm.discriminator.gradient_penalty(inputs))


def test_running_moments_are_those_of_all_inputs():
    torch.manual_seed(0)
    discriminator, batches = Discriminator(3, [4]), [torch.randn(size, 3) * 4 + 2 for size in (5, 17, 40)]
    for batch in batches:
        discriminator.observe(batch, lambda moments: moments)
    everything = torch.cat(batches)
    torch.testing.assert_close(discriminator.mean, everything.mean(dim=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(discriminator.variance, everything.var(dim=0, correction=0), rtol=1e-3, atol=1e-3)
    assert discriminator.count == 62


def test_spectral_norms_are_one():
    torch.manual_seed(0)
    discriminator = Discriminator(3, [16, 16], spectral_norm=True)
    for _ in range(30):
        discriminator(torch.rand(4, 3))
    norms = [torch.linalg.matrix_norm(layer.weight, 2) for layer in discriminator.network if hasattr(layer, "weight")]
    torch.testing.assert_close(torch.stack(norms).detach(), torch.ones(3), rtol=1e-2, atol=1e-2)


# -- training --------------------------------------------------------------------------------------------------------


@pytest.fixture
def demonstrations(tmp_path) -> Path:
    """Two hundred episodes of ten steps that push to the right where the first number is positive."""
    observation = torch.randn(200, 11, 4, generator=torch.Generator().manual_seed(0))
    last = torch.zeros(200, 10, dtype=torch.bool)
    last[:, -1] = True
    shape = [200, 10]
    successor = {"observation": observation[:, 1:], "terminated": torch.zeros_like(last), "truncated": last}
    entries = {"observation": observation[:, :-1], "action": (observation[:, :-1, 0] > 0).long()}
    entries |= {"next": TensorDict(successor, shape)}
    entries |= {"collector": TensorDict({"traj_ids": torch.arange(200).unsqueeze(1).expand(-1, 10)}, shape)}
    TensorDict(entries, shape).reshape(-1).contiguous().memmap(str(tmp_path / "data"))
    return tmp_path / "data"


SMALL: dict[str, Any] = {"env": CARTPOLE, "num_envs": 4, "total_frames": 128, "frames_per_batch": 16, "batch_size": 8}
SMALL |= {"updates_per_batch": 4, "warm_up_frames": 0, "replay_size": 1000}


def fit(algorithm: GAIL, data: Any, folder: Path, ckpt_path: Path | None = None) -> Path:
    torch.manual_seed(3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    callbacks, plugins = [FrameCheckpoint(10**9)], [AtomicCheckpointIO()]
    trainer = pl.Trainer(default_root_dir=folder, max_epochs=1, callbacks=callbacks, plugins=plugins, **quiet)
    trainer.fit(algorithm, datamodule=data, ckpt_path=ckpt_path)
    (path,) = folder.rglob("last.ckpt")
    return path


def algorithm_of(**settings: Any) -> GAIL:
    torch.manual_seed(0)
    learner = SoftQLearning(hidden_sizes=[8], alpha=0.3, learning_rate_schedule="constant", target_update_interval=3)
    return GAIL(learner, discriminator_sizes=[8], **settings)


def test_the_environments_reward_reaches_neither_buffer_nor_learner(demonstrations, tmp_path):
    class Watching(SoftQLearning):
        def update(self, batch: Any) -> dict[str, float]:
            self.seen = batch["next", "reward"].clone()
            return super().update(batch)

    learner = Watching(hidden_sizes=[8])
    algorithm = GAIL(learner, discriminator_sizes=[8])
    received = []
    original = algorithm.update
    algorithm.update = lambda batch: received.append(batch.clone()) or original(batch)  # type: ignore[method-assign]
    fit(algorithm, DemonstrationReplayDataModule(**SMALL, demonstrations=str(demonstrations)), tmp_path)
    for batch in received:
        assert ("next", "reward") not in batch.keys(include_nested=True)
        assert not any("reward" in str(key) for key in batch["demonstrations"].keys(include_nested=True))
    assert not torch.isin(learner.seen, torch.tensor([0.0, 1.0])).any(), "what the discriminator says"
    assert learner.updates == algorithm.updates == 32 and learner.frames == algorithm.frames == 128


def test_the_policy_is_the_learners_and_its_file_knows_the_temperature(demonstrations, tmp_path):
    algorithm = algorithm_of()
    path = fit(algorithm, DemonstrationReplayDataModule(**SMALL, demonstrations=str(demonstrations)), tmp_path)
    policy = load_policy(path)
    observation = torch.randn(7, 4)
    torch.testing.assert_close(
        policy.distribution_parameters(observation), algorithm.policy.distribution_parameters(observation)
    )
    assert policy.temperature == CheckpointPrior(str(path)).temperature == 0.3


@pytest.mark.parametrize("settings", [{"absorbing_states": True}, {"regularization": "spectral_norm"}])
def test_resume_is_exact(demonstrations, tmp_path, settings):
    def data(total_frames: int) -> DemonstrationReplayDataModule:
        return DemonstrationReplayDataModule(
            **{**SMALL, "total_frames": total_frames}, demonstrations=str(demonstrations)
        )

    straight, half, resumed = (algorithm_of(**settings) for _ in range(3))
    for each in (straight, half, resumed):
        each.learner.epsilon_fraction = 0.0
    fit(straight, data(128), tmp_path / "straight")
    path = fit(half, data(64), tmp_path / "half")
    fit(resumed, data(128), tmp_path / "resumed", path)
    assert straight.updates == resumed.updates == resumed.learner.updates == 32
    assert straight.trainer.global_step == 8, "one per training batch, whatever the discriminator does"
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_batches_of_one_class_are_refused(tmp_path):
    with pytest.raises(
        ConfigurationError,
        match=r"data\.class_path: found 'ReplayDataModule', expected .*DemonstrationReplayDataModule",
    ):
        fit(algorithm_of(), ReplayDataModule(**SMALL), tmp_path)


@pytest.mark.parametrize(
    ("learner", "settings", "message"),
    [
        (lambda: IQLearn(), {}, "model.learner: found 'IQLearn', expected an algorithm that learns from a reward"),
        (lambda: ResidualSoftQLearning(CheckpointPrior("pretrained:cartpole-rl")), {}, "found 'ResidualSoftQLearning'"),
        (lambda: FrozenPolicy(CheckpointPrior("pretrained:cartpole-rl")), {}, "model.learner: found 'FrozenPolicy'"),
        (lambda: SoftQLearning(gamma=1.0), {"absorbing_states": True}, "model.learner.gamma: found 1.0"),
        (lambda: SoftQLearning(), {"reward_kind": "logits"}, "model.reward_kind: found 'logits'"),
    ],
)
def test_settings_without_a_meaning_are_refused(learner, settings, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        GAIL(learner(), **settings)
