"""What all algorithms that customise a frozen prior share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rql_lightning.algorithms.base import Algorithm
from rql_lightning.priors import Prior

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class CustomizesPrior(Algorithm):
    """Mixed into an algorithm: it must not see the basic reward, and asks the prior once per state."""

    allowed_rewards = ("add_on",)
    _prior: list[Prior]
    """In a list: the prior becomes a submodule as part of the policy, not twice."""

    @property
    def prior(self) -> Prior:
        """The frozen policy that is customised."""
        return self._prior[0]

    def _why(self, expected: str) -> str:
        return f"{expected}: an algorithm that customises a prior must never see the basic reward"

    def setup(self, stage: str) -> None:
        """Build the networks, and try the prior before anything is trained."""
        super().setup(stage)
        self.probe(torch.as_tensor(self.data.example_observations()))

    def probe(self, observation: Tensor) -> None:
        """Try the prior at observations that the environment really gave, ``[n, *observation_shape]``."""
        self.prior.probe(self.as_input(observation))

    def as_input(self, observation: Tensor) -> Tensor:
        """Observations on the networks' device and of their type."""
        return observation.to(next(self.policy.parameters()))

    def prior_parameters(self, observation: Tensor) -> Tensor:
        """The prior's law at observations ``[..., *observation_shape]``; ``[..., P]`` on their device."""
        return self.prior.distribution_parameters(self.as_input(observation)).to(observation.device)

    @torch.no_grad()
    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Give each frame ``[N, T]`` the prior's law at its state and at its successor, asking once per state.

        Acting may have asked about the state already (``explored``). A successor is the state of the frame that follows
        it: only where an episode or the turn ends is the prior asked about it as well.
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
