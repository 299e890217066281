"""What comes out of files: policies, and priors that are policies of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from rql_lightning.checkpoints import read_checkpoint, resolve
from rql_lightning.errors import CheckpointError, RqlError, SpaceMismatchError
from rql_lightning.policies import ContinuousPolicy, GaussianPolicy, Policy, SoftQPolicy, SquashedGaussianPolicy
from rql_lightning.priors import Prior
from rql_lightning.spaces import space_from_data

KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "SoftQPolicy": (SoftQPolicy, ("hidden_sizes", "alpha_hat", "omega_prime", "task")),
    "SquashedGaussianPolicy": (SquashedGaussianPolicy, ("hidden_sizes", "goal_scales", "task")),
}
"""Every policy that a file can hold, and the settings in its description that its constructor takes."""


def build_policy(description: dict[str, Any], prior: Prior | None = None) -> Policy:
    """The untrained policy that :meth:`Policy.describe` described.

    Args:
        description: Plain data.
        prior: Takes the place of the described prior.

    Raises:
        KeyError, TypeError, ValueError: if the description is not one.
        CheckpointError: if its prior is a function, which a file cannot hold, and none was given.
    """
    spaces = (space_from_data(description["observation_space"]), space_from_data(description["action_space"]))
    if description["kind"] not in KINDS:
        raise ValueError(f"a policy of kind {description['kind']!r}")
    kind, settings = KINDS[description["kind"]]
    if description["prior"] is not None:
        prior = prior or prior_from_description(description["prior"])
        prior.attach(*spaces)
    return kind(*spaces, prior=prior, **{key: description[key] for key in settings})


def load_policy(path_or_name: str | Path, prior: Prior | None = None) -> Policy:
    """Load the policy of any checkpoint of this project, ready to act.

    Nothing in the file is executed: it is read with ``weights_only=True``.

    Args:
        path_or_name: A checkpoint file, or a shipped policy such as ``pretrained:cartpole-rl``.
        prior: The prior, for a policy that customises a :class:`~rql_lightning.priors.FunctionPrior`.

    Returns:
        The policy in evaluation mode on the CPU, its parameters frozen.

    Raises:
        CheckpointError: if the file is missing, damaged or no checkpoint of this project.
    """
    path = resolve(path_or_name)
    checkpoint = read_checkpoint(path)
    try:
        policy = build_policy(checkpoint["rql_lightning"]["policy"], prior)
        prefix = "policy."
        weights = {
            key[len(prefix) :]: value for key, value in checkpoint["state_dict"].items() if key.startswith(prefix)
        }
        policy.load_state_dict(weights)
    except RqlError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: found a file that holds no policy of this project ({error!r})") from error
    return policy.eval().requires_grad_(False)


def prior_from_description(description: dict[str, Any]) -> Prior:
    """The prior that a customised policy's checkpoint describes, before its weights are loaded.

    Raises:
        CheckpointError: if it is a function, which only its owner can give.
    """
    if description["kind"] == "FunctionPrior":
        raise CheckpointError(
            f"found a policy that customises the function {description['log_prob']}, which a file cannot hold; "
            "expected it as load_policy(path, prior=FunctionPrior(...))"
        )
    if description["kind"] != "CheckpointPrior":
        raise ValueError(f"a prior of kind {description['kind']!r}")
    return CheckpointPrior.from_description(description)


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
