"""Evaluation of a frozen policy without training and without a checkpoint of a run."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rql_lightning.algorithms.base import Algorithm
from rql_lightning.errors import ConfigurationError
from rql_lightning.priors import Prior


class FrozenPolicy(Algorithm):
    """Evaluate a frozen policy with test, validate and predict; it cannot be trained.

    Args:
        prior: Frozen policy to evaluate.
    """

    needs_checkpoint = False

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self._given = [prior]  # in a list, so that it is registered only once, as the policy

    def setup(self, stage: str) -> None:
        """Attach the policy to the environment.

        Raises:
            ConfigurationError: If the stage is ``fit``.
        """
        if stage == "fit":
            raise ConfigurationError("model: found FrozenPolicy, expected an algorithm that learns, for fit")
        super().setup(stage)

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Use the given policy unchanged."""
        prior = self._given[0]
        prior.attach(observation_space, action_space)
        self.policy = prior

    def configure_optimizers(self) -> None:
        """None; Lightning asks for the method before :meth:`setup` can refuse."""
