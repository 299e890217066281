"""The base of all algorithms that learn from demonstrations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rql_lightning.algorithms.base import Algorithm, Minibatch
from rql_lightning.data.imitation import DemonstrationDataModule, DemonstrationReplayDataModule, HasDemonstrations
from rql_lightning.errors import require
from rql_lightning.policies.families import EDGE

if TYPE_CHECKING:
    from tensordict import TensorDictBase

CHUNK = 16_384
"""Number of held-out transitions that are evaluated together."""


class Imitates(Algorithm):
    """Mixin for algorithms that learn from demonstrations and must never see a reward.

    Transitions of demonstrations carry no reward, and the reward of frames from the environment is removed before they
    are stored; training returns are logged nevertheless, from what the collector sees.

    Attributes:
        learns_offline, learns_online: Whether it can learn from demonstrations alone, and from collected frames beside
            them.
    """

    learns_offline, learns_online = True, True

    def setup(self, stage: str) -> None:
        """Build the networks, and refuse data modules without demonstrations or collected frames that are needed.

        Raises:
            ConfigurationError: If ``fit`` runs with a data module that does not provide what the algorithm learns from.
        """
        super().setup(stage)
        if stage != "fit":
            return
        accepted = {DemonstrationDataModule: self.learns_offline, DemonstrationReplayDataModule: self.learns_online}
        fits = any(isinstance(self.data, kind) for kind, learns in accepted.items() if learns)
        names = " or ".join(f"rql_lightning.data.{kind.__name__}" for kind, learns in accepted.items() if learns)
        require(fits, "data.class_path", type(self.data).__name__, f"{names}, for {type(self).__name__}")

    def on_train_end(self) -> None:
        """Log the mean log-likelihood of the held-out episodes, if there are any."""
        if self.demonstrations.held_out is not None:
            self.log_metrics({"train/held_out_log_prob": self.held_out_log_prob()})

    @property
    def demonstrations(self) -> HasDemonstrations:
        """The data module, which holds the demonstrations."""
        return self.data  # type: ignore[return-value]

    @torch.no_grad()
    def held_out_log_prob(self) -> float:
        """Return the mean of log π(a|s) over the held-out transitions, for continuous actions in [−1, 1]."""
        held_out, policy = self.demonstrations.held_out, self.policy
        assert held_out is not None
        total = 0.0
        for rows in held_out.transitions.split(CHUNK):
            parameters = policy.distribution_parameters(policy.as_input(rows["observation"]))
            taken = self.with_unit_actions(rows.to(parameters.device))
            total += policy.family.log_prob(parameters, taken["action"]).sum().item()
        return total / len(held_out)

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
