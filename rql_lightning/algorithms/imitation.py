"""The base of all algorithms that learn from demonstrations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rql_lightning.algorithms.base import Algorithm, Minibatch
from rql_lightning.policies.families import EDGE

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class Imitates(Algorithm):
    """Mixin for algorithms that learn from demonstrations and must never see a reward.

    Transitions of demonstrations carry no reward, and the reward of frames from the environment is removed before they
    are stored; training returns are logged nevertheless, from what the collector sees.
    """

    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Remove the reward from frames ``[N, T]``."""
        return super().annotate(frames).exclude(("next", "reward"))

    def demonstrated(self, batch: TensorDictBase) -> Minibatch:
        """Convert transitions of demonstrations ``[K, B]`` to network inputs.

        Args:
            batch: ``observation``, ``action`` in the environment's units, and the successor's ``observation`` and
                ``terminated``.

        Returns:
            The transitions ``[K, B]``, with continuous actions in [−1, 1] and their pre-tanh actions, and rewards 0.
        """
        return super().minibatches(self.with_unit_actions(batch))

    def with_unit_actions(self, batch: TensorDictBase) -> TensorDictBase:
        """Convert continuous actions of demonstrations to [−1, 1] and add pre-tanh actions; discrete ones stay."""
        bounds: Any = self.policy.bounds
        if bounds is None:
            return batch
        action = batch["action"].to(next(self.policy.parameters()))
        unit = bounds.from_environment(action).clamp(-EDGE, EDGE)
        return batch.copy().update({"action": unit, "pre_tanh": torch.atanh(unit)})
