"""Policies and priors loaded from files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rql_lightning.checkpoints import check_weight, read_checkpoint, resolve
from rql_lightning.errors import CheckpointError, RqlError, are_sizes, is_integer
from rql_lightning.policies import Encoder, NetworkPolicy, Policy, ResampledPolicy, SoftQPolicy, SquashedGaussianPolicy
from rql_lightning.priors import Prior, StableBaselines3Prior
from rql_lightning.priors.base import is_positive
from rql_lightning.spaces import space_from_data

KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "NetworkPolicy": (
        NetworkPolicy,
        ("hidden_sizes", "family", "components", "context", "rows", "task", "temperature"),
    ),
    "ResampledPolicy": (ResampledPolicy, ("hidden_sizes", "alpha_hat", "task")),
    "SoftQPolicy": (SoftQPolicy, ("hidden_sizes", "alpha_hat", "omega_prime", "task")),
    "SquashedGaussianPolicy": (SquashedGaussianPolicy, ("hidden_sizes", "task", "temperature")),
}
"""The policy classes that a file can hold, and the settings in their descriptions that their constructors take."""

GIVEN = {"FunctionPrior": "function", "ModulePrior": "module", "SamplerPrior": "function", "TorchRLPrior": "module"}
"""The priors that are code, and what they are; a file holds their names, and the caller gives them."""


def _not_negative(value: Any) -> bool:
    return is_positive(value) or (isinstance(value, int | float) and value is not False and value == 0)


def _absent_or(valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or valid(value)


SETTINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "hidden_sizes": (are_sizes, "a list of integers >= 1"),
    "components": (partial(is_integer, least=1), "an integer >= 1"),
    "context": (partial(is_integer, least=1), "an integer >= 1"),
    "rows": (_absent_or(partial(is_integer, least=1)), "an integer >= 1, or null"),
    "alpha_hat": (is_positive, "a finite number > 0"),
    "omega_prime": (_not_negative, "a finite number >= 0"),
    "temperature": (_absent_or(_not_negative), "a finite number >= 0, or null"),
    "family": (_absent_or(lambda value: isinstance(value, str)), "a name, or null"),
    "task": (_absent_or(lambda value: isinstance(value, str)), "a name, or null"),
}
"""Conditions of the settings in descriptions, and their descriptions for messages."""


def build_policy(description: dict[str, Any], prior: Prior | None = None) -> Policy:
    """Build a policy with untrained weights from the result of :meth:`Policy.describe`.

    Args:
        description: Description of the policy, as plain data.
        prior: Prior to use in place of the described one.

    Raises:
        KeyError, TypeError, ValueError: If the description is invalid.
        CheckpointError: If a setting is invalid, or if the described prior is code, which a file cannot hold, and no
            prior is given.
    """
    return _assembled(description, _prior_of(description, prior))


def _prior_of(description: dict[str, Any], given: Prior | None) -> Prior | None:
    """Return the given prior, or else the described one, for the spaces of the described policy."""
    if description["prior"] is None:
        return given
    prior = given or prior_from_description(description["prior"])
    prior.attach(space_from_data(description["observation_space"]), space_from_data(description["action_space"]))
    return prior


def _assembled(description: dict[str, Any], prior: Prior | None) -> Policy:
    """Build a described policy around its prior."""
    spaces = (space_from_data(description["observation_space"]), space_from_data(description["action_space"]))
    if description["kind"] not in KINDS:
        raise ValueError(f"a policy of kind {description['kind']!r}")
    kind, names = KINDS[description["kind"]]
    description = {"temperature": None, **description}  # descriptions of version 0.1.0 have none
    settings = {name: description[name] for name in names}
    for name, value in settings.items():
        valid, expected = SETTINGS[name]
        if not valid(value):
            raise CheckpointError(f"policy of kind {description['kind']}, {name}: found {value!r}, expected {expected}")
    return kind(*spaces, prior=prior, encoder=described_encoder(description), **settings)


def described_encoder(description: dict[str, Any]) -> Encoder:
    """Build the encoder of a described policy; descriptions of version 0.1.0 imply it by their observation space.

    Raises:
        KeyError, TypeError, ValueError: If the description is invalid.
    """
    if "encoder" in description:
        return Encoder.from_description(description["encoder"])
    space = space_from_data(description["observation_space"])
    if description["kind"] == "SoftQPolicy":
        return Encoder.raw_of(space)
    return Encoder.scaled_of(space, description["goal_scales"])


def with_encoders(weights: dict[str, Tensor], description: dict[str, Any], prefix: str = "policy.") -> dict[str, Any]:
    """Add the constants of the encoders of a policy and its prior to weights that lack them.

    Args:
        weights: Weights as saved.
        description: Description of the policy.
        prefix: Prefix of the names of the policy's weights.
    """
    encoder = described_encoder(description).state_dict()
    result = {**{f"{prefix}encoder.{name}": value for name, value in encoder.items()}, **weights}
    prior = description["prior"]
    nested = None if prior is None else prior.get("policy")
    return result if nested is None else with_encoders(result, nested, f"{prefix}prior.policy.")


def load_policy(path_or_name: str | Path, prior: Prior | None = None) -> Policy:
    """Load the policy of a checkpoint of this project, or of an archive that :mod:`rql_lightning.export` wrote.

    The file is read with ``weights_only=True``, or as safetensors, so no code in it is executed. Memory for the policy
    is allocated once the file is known to have weights of the shapes that its description claims.

    Args:
        path_or_name: Path of a checkpoint or of a ``.safetensors`` file, or name of a shipped policy, such as
            ``pretrained:cartpole-rl``.
        prior: Prior of a policy that customises a function or a module, such as
            :class:`~rql_lightning.priors.FunctionPrior`; weights of a module are those of the file.

    Returns:
        The policy on the CPU, in evaluation mode and with frozen parameters.

    Raises:
        CheckpointError: If the file is missing, damaged or not a checkpoint of this project, or a weight is missing,
            NaN, or has another shape than described.
        ConfigurationError: If it is a ``.safetensors`` file and that library is not installed.
    """
    path = resolve(path_or_name)
    checkpoint = read_checkpoint(path)
    try:
        description, prefix = checkpoint["rql_lightning"]["policy"], "policy."
        given = None if prior is None else _prior_of(description, prior)
        with torch.device("meta"):  # the sizes are a claim until there are weights of such shapes
            claim = _assembled(description, given or _prior_of(description, None))
        weights = with_encoders(checkpoint["state_dict"], description, prefix)
        for name, each in claim.state_dict(prefix=prefix).items():
            if each.is_meta:
                check_weight(name, weights.get(name), each.shape)
        policy = _assembled(description, given or _prior_of(description, None))
        policy.load_state_dict({key[len(prefix) :]: weights[key] for key in weights if key.startswith(prefix)})
        for name, weight in policy.state_dict(prefix=prefix).items():  # infinite limits of an encoder are none
            if weight.is_floating_point() and bool(weight.isnan().any()):
                raise CheckpointError(f"{name}: found NaN, expected numbers")
    except RqlError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (AssertionError, AttributeError, LookupError, OverflowError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: found a file that holds no policy of this project ({error!r})") from error
    return policy.eval().requires_grad_(False)


def prior_from_description(description: dict[str, Any]) -> Prior:
    """Build the prior described by a customised policy's checkpoint, before its weights are loaded.

    Raises:
        CheckpointError: If the prior is a function or a module, which must be passed by the caller.
    """
    kind = description["kind"]
    if kind in GIVEN:
        name = f"{GIVEN[kind]} {description.get('log_prob') or description.get('name')}"
        raise CheckpointError(
            f"found a policy that customises the {name}, which a file cannot hold; expected load_policy(path, "
            f"prior={kind}(...))"
        )
    kinds: dict[str, Any] = {"CheckpointPrior": CheckpointPrior, "StableBaselines3Prior": StableBaselines3Prior}
    if kind not in kinds:
        raise ValueError(f"a prior of kind {kind!r}")
    return kinds[kind].from_description(description)


class CheckpointPrior(Prior):
    """A frozen policy from a checkpoint of this project.

    Args:
        path: Path of a checkpoint, or name of a shipped policy, such as pretrained:cartpole-rl.

    Raises:
        CheckpointError: If the file is missing, damaged or not a checkpoint of this project.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._wrap(load_policy(path), path)

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> CheckpointPrior:
        """Build the prior described by a customised policy's checkpoint, before its weights are loaded."""
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
        self.family, self.bounds, self.temperature = policy.family, policy.bounds, policy.temperature

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Return the policy's distribution parameters, ``[..., P]``."""
        return self.policy.distribution_parameters(observation)

    def log_prob_of(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the policy's log π(a|s), ``[N]``."""
        return self.policy.log_prob_of(observation, action)

    def as_actor(self) -> Policy:
        """Return the policy of the checkpoint."""
        return self.policy

    def origin(self) -> str:
        """Return the path of the file, for messages."""
        return f"prior {self.path}"

    def describe(self) -> dict[str, Any]:
        """Return the path and the policy's description."""
        return {"kind": "CheckpointPrior", "path": self.path, "policy": self.policy.describe()}
