"""Policies whose network returns the parameters of any family of action distributions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from torch import Tensor, nn

from rql_lightning.errors import ConfigurationError
from rql_lightning.networks import RowNetwork, mlp
from rql_lightning.policies.base import Policy
from rql_lightning.policies.encoders import Encoder
from rql_lightning.policies.families import Categorical, Family, SquashedNormal
from rql_lightning.policies.flow import Flow
from rql_lightning.policies.mixture import SquashedNormalMixture
from rql_lightning.spaces import ActionBounds, check_continuous, check_discrete

CONTINUOUS = ("squashed_normal", "mixture", "flow")


class NetworkPolicy(Policy):
    """A policy whose network returns the parameters of a family, such as one that is fitted to demonstrations.

    Args:
        observation_space: Observation space, a ``Box``.
        action_space: Action space, ``Discrete`` or a bounded ``Box``.
        hidden_sizes: Width of each hidden layer of the network.
        family: ``categorical`` for discrete actions; ``squashed_normal``, ``mixture`` or ``flow`` for continuous ones;
            ``None`` for the first of them.
        components: Number of components of a mixture.
        context: Number of outputs of the network for a flow.
        rows: Number of rows of the observation if all but the first are a set (:class:`RowNetwork`), or ``None``.
        encoder: Encoder of observations; by default scales numbers with finite bounds to [−1, 1].
        prior: Frozen prior to which the policy's KL divergence is reported, or ``None``.
        task: Gymnasium id of the task.
        temperature: Temperature at which the policy was trained, or ``None`` if it is unknown or there is none.

    Raises:
        ConfigurationError: If the family does not fit the actions, or the rows do not fit the observations.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        hidden_sizes: list[int],
        family: str | None = None,
        components: int = 5,
        context: int = 32,
        rows: int | None = None,
        encoder: Encoder | None = None,
        prior: Policy | None = None,
        task: str | None = None,
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.observation_space, self.action_space, self.task = observation_space, action_space, task
        self.hidden_sizes, self.components, self.context, self.rows = list(hidden_sizes), components, context, rows
        self.prior = prior
        self.encoder = encoder or Encoder.scaled_of(observation_space)
        self.family_name, self.family = self._family(family)
        if isinstance(self.family, Flow):
            self.flow = self.family.module
        sizes = (self.hidden_sizes, self.family.size)
        size = self.encoder.size
        self.network: nn.Module = mlp(size, *sizes) if rows is None else RowNetwork(size, rows, *sizes)

    def _family(self, name: str | None) -> tuple[str, Family]:
        """Return the name of the family and the family."""
        if isinstance(self.action_space, gym.spaces.Discrete):
            check_discrete(self.observation_space, self.action_space)
            _require_family(name, ("categorical",), self.action_space)
            return "categorical", Categorical(int(self.action_space.n))
        check_continuous(self.observation_space, self.action_space)
        _require_family(name, CONTINUOUS, self.action_space)
        self.bounds = ActionBounds(self.action_space)
        size = self.bounds.size
        if name == "mixture":
            return name, SquashedNormalMixture(size, self.components)
        return (name, Flow(size, self.context)) if name == "flow" else ("squashed_normal", SquashedNormal(size))

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Return the parameters of the family, ``[..., P]``."""
        return self.parameters_of(self.encoder(self.flatten(observation)))

    def parameters_of(self, code: Tensor) -> Tensor:
        """Return the parameters of the family at encoded observations ``[..., D]``, ``[..., P]``."""
        return self.family.from_network(self.network(code))

    def start_at(self, other: Policy, option: str) -> None:
        """Copy the weights of a policy of the same architecture, and what its encoder observed.

        Args:
            other: Policy to copy from.
            option: Option that requests it and its value, for messages.

        Raises:
            ConfigurationError: If ``other`` is not a policy of the same architecture.
        """
        expected, found = self._architecture(self), self._architecture(other)
        if found != expected:
            raise ConfigurationError(f"{option}, expected a policy of {expected}, not {found}")
        for name in ("network", "encoder", *(("flow",) if isinstance(self.family, Flow) else ())):
            getattr(self, name).load_state_dict(getattr(other, name).state_dict())

    @staticmethod
    def _architecture(policy: Any) -> dict[str, Any]:
        """Return the properties that two policies must share to have interchangeable weights."""
        family = {"family": type(getattr(policy, "family", policy)).__name__}
        if not isinstance(policy, NetworkPolicy):
            return family
        shapes = {"observation": policy.observation_space.shape, "action": policy.action_space.shape}
        size = {"size": policy.family.size, "hidden_sizes": policy.hidden_sizes, "rows": policy.rows}
        return {**family, **shapes, **size, "encoder": policy.encoder.fixed}

    def describe(self) -> dict[str, Any]:
        """Return the description from which :func:`rql_lightning.load_policy` rebuilds the policy."""
        own = {key: getattr(self, key) for key in ("hidden_sizes", "components", "context", "rows")}
        own |= {"family": self.family_name, "encoder": self.encoder.describe(), "temperature": self.temperature}
        own["prior"] = None if self.prior is None else self.prior.describe()
        return {**super().describe(), **own}


def _require_family(name: str | None, known: tuple[str, ...], space: gym.Space[Any]) -> None:
    if name is not None and name not in known:
        raise ConfigurationError(f"model.family: found {name!r}, expected {' or '.join(map(repr, known))} for {space}")
