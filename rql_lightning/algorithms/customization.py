"""The base of all algorithms that customise a frozen prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rql_lightning.algorithms.base import Algorithm
from rql_lightning.algorithms.hyperparameters import Temperature
from rql_lightning.errors import require
from rql_lightning.priors import Prior

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class CustomizesPrior(Algorithm):
    """Mixin for algorithms that customise a prior: no access to the basic reward, one query of the prior per state."""

    allowed_rewards = ("add_on",)
    accepts_samples = False
    """Whether a prior is accepted that can only be sampled."""
    _prior: list[Prior]
    """Held in a list so that the prior is registered only once, as a submodule of the policy."""

    @property
    def prior(self) -> Prior:
        """The frozen policy to customise."""
        return self._prior[0]

    def weight_of(self, omega_prime: float | None, alpha_hat: Temperature) -> Temperature:
        """Return ω′, by default the temperature α of the prior (ω′ = ωα with ω = 1), or α̂ if α is unknown.

        Raises:
            ConfigurationError: If the prior can only be sampled, and this algorithm needs its log-likelihood.
        """
        expected = (
            "a prior with a log-likelihood: SampledResidualQLearning customises this one, or BehaviorCloning fits a "
            "policy with a density to its episodes"
        )
        require(self.accepts_samples or not self.prior.only_samples, "model.prior", type(self.prior).__name__, expected)
        if omega_prime is not None:
            return omega_prime
        return alpha_hat if self.prior.temperature is None else self.prior.temperature

    def _why(self, expected: str) -> str:
        return f"{expected}: an algorithm that customises a prior must never see the basic reward"

    def setup(self, stage: str) -> None:
        """Build the networks, and check the prior before anything is trained."""
        super().setup(stage)
        self.probe(torch.as_tensor(self.data.example_observations()))

    def probe(self, observation: Tensor) -> None:
        """Check the prior at observations returned by the environment, ``[n, *observation_shape]``."""
        self.prior.probe(self.as_input(observation))

    def as_input(self, observation: Tensor) -> Tensor:
        """Convert observations to the device and dtype of the networks."""
        return observation.to(next(self.policy.parameters()))

    def prior_parameters(self, observation: Tensor) -> Tensor:
        """Return the prior's distribution parameters ``[..., P]`` at observations ``[..., *observation_shape]``."""
        return self.prior.distribution_parameters(self.as_input(observation)).to(observation.device)

    @torch.no_grad()
    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Add the prior's distribution parameters at each state and successor to frames ``[N, T]``.

        The prior is evaluated once per state. Parameters that were computed for acting (``explored``) are reused, and a
        successor is the state of the next frame, so the prior is evaluated separately only for successors at the end of
        an episode or of the batch.
        """
        frames = super().annotate(frames)
        observation, successor = frames["observation"], frames["next", "observation"]
        parameters: Any = frames.get("prior_parameters", None)
        if parameters is None:
            parameters = self.prior_parameters(observation)
            frames["prior_parameters"] = parameters
        following = parameters.roll(-1, dims=1)
        asked_anew = torch.ones(frames.batch_size, dtype=torch.bool)
        asked_anew[:, :-1] = self.policy.flatten(successor[:, :-1] != observation[:, 1:]).any(dim=-1)
        following[asked_anew] = self.prior_parameters(successor[asked_anew])
        frames["next", "prior_parameters"] = following
        return frames
