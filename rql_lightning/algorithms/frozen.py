"""Evaluation of a frozen policy without training and without a checkpoint of a run."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rql_lightning.algorithms.hyperparameters import check_hyperparameters
from rql_lightning.algorithms.untrained import Untrained
from rql_lightning.priors import Prior


class FrozenPolicy(Untrained):
    """Evaluate a frozen policy with test, validate and predict; it cannot be trained.

    Args:
        prior: Frozen policy to evaluate.
    """

    def __init__(self, prior: Prior) -> None:
        check_hyperparameters(locals())
        super().__init__()
        self._given = [prior]  # in a list, so that it is registered only once, as the policy

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Use the given policy unchanged."""
        prior = self._given[0]
        prior.attach(observation_space, action_space)
        self.policy = prior
