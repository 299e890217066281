"""A prior out of a checkpoint of this project."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from rql_lightning.errors import SpaceMismatchError
from rql_lightning.policies import ContinuousPolicy, GaussianPolicy, Policy, build_policy, load_policy
from rql_lightning.priors.base import Prior


class CheckpointPrior(Prior):
    """A policy that this project trained, frozen.

    Args:
        path: A checkpoint file, or a shipped policy such as ``pretrained:cartpole-rl``.

    Raises:
        CheckpointError: if the file is missing, damaged or no checkpoint of this project.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._wrap(load_policy(path), path)

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> CheckpointPrior:
        """The prior inside a customised policy's checkpoint, before its weights are loaded."""
        prior = cls.__new__(cls)
        Prior.__init__(prior)
        prior._wrap(build_policy(description["policy"]), description["path"])
        return prior

    def _wrap(self, policy: Policy, path: str) -> None:
        self.path = path
        self.policy = policy.eval().requires_grad_(False)
        self.observation_space, self.action_space, self.task = (
            policy.observation_space,
            policy.action_space,
            policy.task,
        )

    @property
    def gaussian(self) -> bool:
        """See :attr:`Prior.gaussian`."""
        return isinstance(self.policy, GaussianPolicy)

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Those of the policy, ``[..., P]``."""
        return self.policy.distribution_parameters(observation)

    def make_distribution(self, parameters: Tensor) -> Distribution:
        """That of the policy."""
        return self.policy.make_distribution(parameters)

    def mode(self, parameters: Tensor) -> Tensor:
        """That of the policy."""
        return self.policy.mode(parameters)

    def sample(self, parameters: Tensor) -> Tensor:
        """That of the policy."""
        return self.policy.sample(parameters)

    def log_prob_of(self, observation: Tensor, action: Tensor) -> Tensor:
        """That of the policy."""
        return self.policy.log_prob_of(observation, action)

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """That of the policy.

        Raises:
            SpaceMismatchError: if its actions are discrete.
        """
        if not isinstance(self.policy, ContinuousPolicy):
            raise SpaceMismatchError(f"{self.origin()}: found a policy over discrete actions, expected a density")
        return self.policy.pre_tanh_log_prob(parameters, pre_tanh)

    def origin(self) -> str:
        """Names the file."""
        return f"prior {self.path}"

    def describe(self) -> dict[str, Any]:
        """See :meth:`rql_lightning.policies.Policy.describe`."""
        return {"kind": "CheckpointPrior", "path": self.path, "policy": self.policy.describe()}
