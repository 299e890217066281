"""What comes out of files: policies, and priors that are policies of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from rql_lightning.checkpoints import read_checkpoint, resolve
from rql_lightning.errors import CheckpointError, RqlError
from rql_lightning.policies import Encoder, Policy, SoftQPolicy, SquashedGaussianPolicy
from rql_lightning.priors import Prior
from rql_lightning.spaces import space_from_data

KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "SoftQPolicy": (SoftQPolicy, ("hidden_sizes", "alpha_hat", "omega_prime", "task")),
    "SquashedGaussianPolicy": (SquashedGaussianPolicy, ("hidden_sizes", "task")),
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
    encoder = described_encoder(description)
    return kind(*spaces, prior=prior, encoder=encoder, **{key: description[key] for key in settings})


def described_encoder(description: dict[str, Any]) -> Encoder:
    """The encoder of a policy's description; one of version 0.1.0 has it in its observation space.

    Raises:
        KeyError, TypeError, ValueError: if the description is not one.
    """
    if "encoder" in description:
        return Encoder.from_description(description["encoder"])
    space = space_from_data(description["observation_space"])
    if description["kind"] == "SoftQPolicy":
        return Encoder.raw_of(space)
    return Encoder.scaled_of(space, description["goal_scales"])


def with_encoders(weights: dict[str, Tensor], description: dict[str, Any], prefix: str = "policy.") -> dict[str, Any]:
    """Weights of a policy, with the numbers of its encoder and of its prior's where the file has them in words only.

    Args:
        weights: As they were saved.
        description: Of the policy.
        prefix: Of the policy's weights.
    """
    encoder = described_encoder(description).state_dict()
    result = {**{f"{prefix}encoder.{name}": value for name, value in encoder.items()}, **weights}
    prior = description["prior"]
    nested = None if prior is None else prior.get("policy")
    return result if nested is None else with_encoders(result, nested, f"{prefix}prior.policy.")


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
        description, prefix = checkpoint["rql_lightning"]["policy"], "policy."
        policy = build_policy(description, prior)
        weights = with_encoders(checkpoint["state_dict"], description, prefix)
        own = {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
        policy.load_state_dict(own)
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
        self.family, self.bounds = policy.family, policy.bounds

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Those of the policy, ``[..., P]``."""
        return self.policy.distribution_parameters(observation)

    def log_prob_of(self, observation: Tensor, action: Tensor) -> Tensor:
        """That of the policy."""
        return self.policy.log_prob_of(observation, action)

    def origin(self) -> str:
        """Names the file."""
        return f"prior {self.path}"

    def describe(self) -> dict[str, Any]:
        """See :meth:`rql_lightning.policies.Policy.describe`."""
        return {"kind": "CheckpointPrior", "path": self.path, "policy": self.policy.describe()}
