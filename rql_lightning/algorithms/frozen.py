"""A policy as it is, for evaluation without a checkpoint of a run."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rql_lightning.algorithms.base import Algorithm
from rql_lightning.errors import ConfigurationError
from rql_lightning.priors import Prior


class FrozenPolicy(Algorithm):
    """Evaluate, film and record a frozen policy with test, validate and predict; there is nothing to train.

    Args:
        prior: The policy.
    """

    needs_checkpoint = False

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self._given = [prior]  # in a list: it becomes a submodule as the policy, not twice

    def setup(self, stage: str) -> None:
        """Attach the policy to the environment.

        Raises:
            ConfigurationError: for ``fit``.
        """
        if stage == "fit":
            raise ConfigurationError("model: found FrozenPolicy, expected an algorithm that learns, for fit")
        super().setup(stage)

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Take the policy as it is."""
        prior = self._given[0]
        prior.attach(observation_space, action_space)
        self.policy = prior

    def configure_optimizers(self) -> None:
        """None; Lightning asks for the method before :meth:`setup` can refuse."""
