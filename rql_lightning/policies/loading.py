"""Policies out of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rql_lightning.checkpoints import read_checkpoint, resolve
from rql_lightning.envs.spaces import space_from_data
from rql_lightning.errors import CheckpointError, RqlError
from rql_lightning.policies.base import Policy
from rql_lightning.policies.soft_q import SoftQPolicy
from rql_lightning.policies.squashed_gaussian import SquashedGaussianPolicy

if TYPE_CHECKING:
    from rql_lightning.priors import Prior

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
    from rql_lightning.priors import prior_from_description  # here: priors are policies, and import this module

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
