"""Residual Q-learning from samples of the prior alone, at ω′ = α̂."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.algorithms.residual_soft_q import ResidualSoftQLearning
from rql_lightning.errors import require
from rql_lightning.policies import ResampledPolicy
from rql_lightning.priors import Prior

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class SampledResidualQLearning(ResidualSoftQLearning):
    """Customise a prior that can only be sampled to an add-on reward, for discrete or bounded continuous actions.

    With omega_prime = alpha_hat, the value (Eq. 8) is an expectation over the prior, and the policy (Eq. 6) is the
    prior reweighted by exp(Q_R / alpha_hat). K samples of the prior at each state estimate both, with an error of
    O(1 / K). They are drawn once per state and kept in the replay buffer. The policy cannot differ from the prior by
    more than log K nats.

    Args:
        prior: Frozen policy to customise, a SamplerPrior, which determines the number of samples K.
        omega_prime: Weight of the prior's log-likelihood; null for alpha_hat, which is the only one that is possible.
        alpha_hat: Temperature of the customised policy; a larger one keeps it closer to the prior.
        epsilon_initial: Probability of a uniformly random action at the start of training; otherwise the policy is
            sampled. A large value lets customization fail in tasks whose relevant states only a skilled policy reaches.
        **settings: Arguments of SoftQLearning except alpha.
    """

    accepts_samples = True
    policy: Any

    def __init__(
        self,
        prior: Prior,
        omega_prime: float | None = None,
        alpha_hat: float = 1.0,
        epsilon_initial: float = 0.1,
        **settings: Any,
    ) -> None:
        super().__init__(prior, omega_prime, alpha_hat, epsilon_initial, **settings)
        expected = "a SamplerPrior; for priors with a log-likelihood there are ResidualSoftQLearning and ResidualSAC"
        require(self.prior.only_samples, "model.prior", type(prior).__name__, expected)
        expected = (
            f"model.alpha_hat = {alpha_hat}, or null: for another weight, the exponent of the policy keeps the term "
            "(omega_prime - alpha_hat) * log-likelihood of the prior, which is unknown for a prior that can only be "
            "sampled"
        )
        require(self.omega_prime == alpha_hat, "model.omega_prime", omega_prime, expected)

    @property
    def continuous(self) -> bool:
        """Whether actions are continuous; the Q-network then takes the action as an input."""
        return self.policy.bounds is not None

    def make_policy(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> Any:
        """Build the policy of Eq. 6, for discrete actions as in residual soft Q-learning."""
        if isinstance(action_space, gym.spaces.Discrete):
            return super().make_policy(observation_space, action_space, task)
        self.prior.attach(observation_space, action_space)
        return ResampledPolicy(observation_space, action_space, self.hidden_sizes, self.alpha_hat, self.prior, task)

    def evaluate(self, minibatch: Minibatch) -> tuple[Tensor, Tensor]:
        """Return Q of the actions taken, of each of the twins ``[2, B]`` for continuous actions."""
        if not self.continuous:
            return super().evaluate(minibatch)
        q_taken = self.policy.q_network(minibatch.observation, minibatch.action)
        return q_taken, q_taken

    def target_q(self, chunk: Minibatch) -> Tensor:
        """Return the target networks' Q-values of all actions, or of the prior's samples, ``[k, B, K]``."""
        if not self.continuous:
            return super().target_q(chunk)
        assert chunk.next_prior_parameters is not None
        return self.policy.q_of(self.target_network, chunk.next_observation, chunk.next_prior_parameters)

    def next_value(self, next_q: Tensor, minibatch: Minibatch) -> Tensor:
        """Return V_R(s′) (Eq. 8 at ω′ = α̂) from the samples in the replay buffer; ``[...]``."""
        if not self.continuous:
            return super().next_value(next_q, minibatch)
        return functional.sampled_value(next_q, self.alpha_hat)

    @torch.no_grad()
    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Add the prior's samples at each successor to frames ``[N, T]``, and scale actions to [−1, 1].

        Those at the state itself served for acting, and for the frame before; updates do not need them.
        """
        frames = super().annotate(frames).exclude("prior_parameters")
        if self.continuous:
            frames["action"] = self.policy.bounds.from_environment(frames["action"])
        return frames
