"""Generative adversarial imitation learning (Ho & Ermon 2016), with any off-policy learner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import torch
from torch import Tensor
from torch.nn import functional as F

from rql_lightning import functional
from rql_lightning.algorithms.base import Algorithm, Minibatch
from rql_lightning.algorithms.customization import CustomizesPrior
from rql_lightning.algorithms.frozen import FrozenPolicy
from rql_lightning.algorithms.hyperparameters import Schedule, check_hyperparameters
from rql_lightning.algorithms.imitation import Imitates
from rql_lightning.algorithms.optimization import VectorOptimizer
from rql_lightning.errors import ConfigurationError, require
from rql_lightning.networks import Discriminator

if TYPE_CHECKING:
    from tensordict import TensorDictBase

Regularization = Literal["gradient_penalty", "spectral_norm", "none"]


class GAIL(Imitates):
    """Imitate demonstrations by learning from the reward of a discriminator between them and the policy.

    In each training step, the discriminator makes some updates, then relabels the rewards of all K minibatches at once,
    and the learner makes its K updates from them.

    Args:
        learner: Algorithm that learns from the discriminator's reward, such as SoftQLearning or SoftActorCritic.
        reward_kind: Reward from the discriminator's probability D that a step was demonstrated: 'logit' for
            log D - log(1 - D), of either sign; 'gail' for -log(1 - D), which is never negative and rewards long
            episodes; 'negative' for log D, which is never positive and rewards short ones.
        discriminator_sizes: Width of each hidden layer of the discriminator.
        discriminator_learning_rate: Initial learning rate of the discriminator's Adam.
        discriminator_learning_rate_schedule: Learning rate schedule of the discriminator: 'constant', or 'linear' to
            decrease it to 0 over the budget.
        discriminator_updates: Number of updates of the discriminator per training step.
        discriminator_batch_size: Number of demonstrated and of collected transitions per update of the discriminator.
        regularization: Regularization of the discriminator: 'gradient_penalty', 'spectral_norm' or 'none'.
        gradient_penalty: Weight of the gradient penalty.
        absorbing_states: Whether terminal states lead to an absorbing state whose reward is learnt too, so that the
            sign of the reward does not favour long or short episodes (Kostrikov et al. 2019). Without it, the value of
            terminal states is 0.
    """

    learns_offline = False

    def __init__(
        self,
        learner: Algorithm,
        reward_kind: functional.RewardKind = "logit",
        discriminator_sizes: list[int] = [32, 32],  # noqa: B006 (shown by --help; never mutated)
        discriminator_learning_rate: float = 1e-3,
        discriminator_learning_rate_schedule: Schedule = "constant",
        discriminator_updates: int = 4,
        discriminator_batch_size: int = 512,
        regularization: Regularization = "gradient_penalty",
        gradient_penalty: float = 1.0,
        absorbing_states: bool = False,
    ) -> None:
        check_hyperparameters(locals())
        rewarded = not isinstance(learner, CustomizesPrior | FrozenPolicy | Imitates)
        expected = "an algorithm that learns from a reward alone, such as SoftQLearning or SoftActorCritic"
        require(rewarded, "model.learner", type(learner).__name__, expected)
        if absorbing_states:
            gamma: Any = learner.gamma
            require(gamma < 1, "model.learner.gamma", gamma, "a number < 1 with model.absorbing_states")
        super().__init__()
        self.learner, self.explored, self.annotation = learner, learner.explored, learner.annotation
        self.reward_kind, self.absorbing_states = reward_kind, absorbing_states
        self.discriminator_sizes, self.discriminator_updates = list(discriminator_sizes), discriminator_updates
        self.discriminator_learning_rate = discriminator_learning_rate
        self.discriminator_learning_rate_schedule = discriminator_learning_rate_schedule
        self.discriminator_batch_size = discriminator_batch_size
        self.regularization, self.gradient_penalty = regularization, gradient_penalty

    # -- delegated to the learner ------------------------------------------------------------------------------------

    @property
    def noise_state(self) -> Tensor | None:
        """State of the learner's exploration noise."""
        return self.learner.noise_state

    @noise_state.setter
    def noise_state(self, state: Tensor | None) -> None:
        self.learner.noise_state = state

    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """Explore as the learner does, at observations ``[N, *observation_shape]``."""
        return self.learner.explore(observation)

    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Annotate frames ``[N, T]`` as the learner does, and remove the reward."""
        return super().annotate(self.learner.annotate(frames))

    def setup(self, stage: str) -> None:
        """Build the networks, and start the learner's count of updates where this one starts."""
        super().setup(stage)
        self.learner.updates = self.updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counters, also of the learner."""
        super().on_load_checkpoint(checkpoint)
        self.learner.updates = self.updates

    # ----------------------------------------------------------------------------------------------------------------

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Allocate the networks of the learner and the discriminator."""
        self.learner.build(observation_space, action_space, task)
        self.policy = self.learner.policy
        encoder: Any = self.policy.encoder
        actions = self.policy.family.size if self.policy.bounds is None else self.policy.bounds.size
        spectral_norm = self.regularization == "spectral_norm"
        inputs = encoder.size + actions + self.absorbing_states
        self.discriminator = Discriminator(inputs, self.discriminator_sizes, spectral_norm)

    def configure_optimizers(self) -> Any:
        """Create the learner's optimizer, and one for the discriminator."""
        groups = [list(self.discriminator.parameters())]
        settings = (self.discriminator_learning_rate, self.discriminator_learning_rate_schedule)
        return [self.learner.configure_optimizers(), VectorOptimizer(groups, *settings)]

    def update(self, batch: TensorDictBase) -> dict[str, float]:
        """Update the discriminator, relabel the rewards of K minibatches ``[K, B]``, and update the learner.

        Raises:
            ConfigurationError: If the batch has transitions of one class only.
        """
        demonstrations = batch["demonstrations"]
        if demonstrations.numel() == 0 or batch.numel() == 0:
            found = f"{demonstrations.numel()} demonstrated and {batch.numel()} collected transitions in a batch"
            raise ConfigurationError(f"data: found {found}, expected some of each: a discriminator needs both classes")
        self.learner.frames = self.frames
        # As the learner sees them, without a reward: self.minibatches would relabel them before the updates, too.
        collected = self.learner.minibatches(batch)
        demonstrated = self.learner.minibatches(self.with_unit_actions(demonstrations))
        metrics = self._discriminate(demonstrated, collected)
        reward = self.reward(batch, collected)
        metrics |= {"imitation_reward": reward.mean().item(), "imitation_reward_std": reward.std().item()}
        metrics |= self.learner.update(batch.exclude("demonstrations").set(("next", "reward"), reward))
        self.updates = self.learner.updates
        return metrics

    # -- the reward --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def reward(self, batch: TensorDictBase, minibatch: Minibatch) -> Tensor:
        """Return the current discriminator's reward of K minibatches, ``[K, B]``.

        With absorbing states, a terminated episode goes on in an absorbing state for ever. Its value there is
        r_abs / (1 − γ), with the reward r_abs of that state. A learner takes the value of terminal states as 0, so
        γ r_abs / (1 − γ) is added to the reward of the last step instead, which gives the same target.
        """
        reward = functional.imitation_reward(self.discriminator(self.inputs(minibatch)), self.reward_kind)
        if not self.absorbing_states:
            return reward
        absorbing = functional.imitation_reward(self.discriminator(self._absorbing(reward)), self.reward_kind)
        return reward + self._absorbing_weight * minibatch.terminated * absorbing

    @property
    def _absorbing_weight(self) -> float:
        """Discounted number of steps in the absorbing state, γ / (1 − γ)."""
        gamma: Any = self.learner.gamma
        return gamma / (1.0 - gamma)

    def inputs(self, minibatch: Minibatch) -> Tensor:
        """Return the discriminator's inputs: encoded observation and action, ``[..., I]``."""
        action = minibatch.action
        if self.policy.bounds is None:
            action = F.one_hot(action, self.policy.family.size).to(minibatch.observation.dtype)
        columns = [minibatch.observation, action]
        if self.absorbing_states:
            columns.append(torch.zeros_like(action[..., :1]))
        return torch.cat(columns, dim=-1)

    def _absorbing(self, like: Tensor) -> Tensor:
        """Return the input of the absorbing state, ``[1, I]``: an indicator, and 0 elsewhere."""
        row = like.new_zeros(1, self.discriminator.size)
        row[:, -1] = 1.0
        return row

    # -- the discriminator -------------------------------------------------------------------------------------------

    def _discriminate(self, demonstrated: Minibatch, collected: Minibatch) -> dict[str, float]:
        """Make the discriminator's updates from minibatches ``[K, B]`` of both classes; returns means to log."""
        optimizers: Any = self.optimizers()
        parameters, history = list(self.discriminator.parameters()), []
        both = [(self.inputs(each).flatten(0, 1), each.terminated.flatten()) for each in (demonstrated, collected)]
        size = min(self.discriminator_batch_size, len(both[0][0]))
        for index in range(self.discriminator_updates):
            start = index * size % (len(both[0][0]) - size + 1)
            (expert, expert_weights), (policy, policy_weights) = (
                self._with_absorbing(inputs[start : start + size], ends[start : start + size]) for inputs, ends in both
            )
            self.discriminator.observe(torch.cat([expert, policy]), self._average_over_ranks)
            losses, metrics = self.discriminator_losses(expert, policy, expert_weights, policy_weights)
            # Not through Lightning's wrapper, which would count a second step per training batch.
            self.descend(torch.stack(list(losses.values())).sum(), parameters, optimizers[1], last=False)
            history.append({**{name: value.detach() for name, value in losses.items()}, **metrics})
        return {name: torch.stack([row[name] for row in history]).mean().item() for name in history[0]}

    def _with_absorbing(self, inputs: Tensor, terminated: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs ``[n, I]`` and weights ``[n]``, with the absorbing state weighted by the ends of episodes."""
        weights = inputs.new_ones(len(inputs))
        if not self.absorbing_states:
            return inputs, weights
        weight = self._absorbing_weight * terminated.sum()
        return torch.cat([inputs, self._absorbing(inputs)]), torch.cat([weights, weight.reshape(1)])

    def discriminator_losses(
        self, expert: Tensor, policy: Tensor, expert_weights: Tensor, policy_weights: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the discriminator's losses, each a scalar, and metrics without gradient.

        Args:
            expert: Inputs of demonstrated steps, ``[n, I]``.
            policy: Inputs of collected steps, ``[n, I]``.
            expert_weights: Weights of the demonstrated steps, ``[n]``.
            policy_weights: Weights of the collected steps, ``[n]``.
        """
        expert_logit, policy_logit = self.discriminator(expert), self.discriminator(policy)
        # D = sigmoid(logit): −log D = softplus(−logit) for label 1, and −log(1 − D) = softplus(logit) for label 0.
        cross_entropy = (expert_weights * F.softplus(-expert_logit)).sum() / expert_weights.sum()
        cross_entropy = cross_entropy + (policy_weights * F.softplus(policy_logit)).sum() / policy_weights.sum()
        losses = {"discriminator_loss": cross_entropy}
        if self.regularization == "gradient_penalty":
            noise = torch.rand_like(expert)
            losses["gradient_penalty"] = self.gradient_penalty * self.discriminator.gradient_penalty(
                noise * policy + (1.0 - noise) * expert
            )
        logit = torch.cat([expert_logit, policy_logit]).detach()
        metrics = {
            "accuracy_expert": (expert_logit > 0).float().mean(),
            "accuracy_policy": (policy_logit < 0).float().mean(),
            "logit_expert": expert_logit.detach().mean(),
            "logit_policy": policy_logit.detach().mean(),
            "discriminator_entropy": (F.softplus(logit) - logit * torch.sigmoid(logit)).mean(),
        }
        return losses, metrics

    def _average_over_ranks(self, value: Tensor) -> Tensor:
        return self._average(value) if self.trainer.world_size > 1 else value
