"""Early stopping by held-out episodes, for algorithms that learn from recordings alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from rql_lightning.algorithms.imitation import Imitates
from rql_lightning.errors import DivergenceError


class StopsEarly(Imitates):
    """Mixin that evaluates held-out episodes from time to time, keeps the best weights, and stops without improvement.

    Attributes:
        held_out_metric: Name of what :meth:`held_out_score` returns, as it is logged (``train/held_out_<name>``).
        maximized: Whether a larger score is a better one.
        validate_every: Number of training steps between two evaluations.
        patience: Number of evaluations without an improvement after which training stops; ``None`` for no limit.
        best_weights: Weights with the best score so far, ``[P]``.
        waited: Evaluations since then.
    """

    held_out_metric: str = "log_prob"
    maximized: bool = True
    validate_every: int
    patience: int | None
    best_weights: Tensor
    waited: Tensor

    def held_out_score(self) -> float:
        """Return how well the held-out episodes are predicted; by default their mean log-likelihood."""
        return self.held_out_log_prob()

    def remember_best(self, parameters: Iterable[Tensor]) -> None:
        """Allocate the best weights so far, in the order of the main optimizer's parameters."""
        worst = torch.finfo(torch.float32).min if self.maximized else torch.finfo(torch.float32).max
        self.register_buffer("best_weights", parameters_to_vector(parameters).detach().clone())
        self.register_buffer(f"best_{self.held_out_metric}", torch.tensor(worst))
        self.register_buffer("waited", torch.tensor(0))

    def stop_early(self, updates: int) -> None:
        """Evaluate the held-out episodes if it is due, keep the best weights, and stop where they do not improve.

        Args:
            updates: Updates of the training step that has just ended.
        """
        over = self.data.frames >= self.data.total_frames
        due = self.updates // updates % self.validate_every == 0 or over
        if self.demonstrations.held_out is None or not due:
            return
        name, score = self.held_out_metric, self.held_out_score()
        if self.trainer.world_size > 1:  # so that all ranks decide the same, whatever rounding does
            score = self._average(torch.tensor(score, device=self.device)).item()
        if math.isnan(score):
            raise DivergenceError(f"held_out_{name} became NaN; try a smaller model.learning_rate")
        weights = self.main_optimizer.optimizer.vectors[0].detach()  # the networks' parameters are views of it
        best: Tensor = getattr(self, f"best_{name}")
        self.waited += 1
        if (score > best) if self.maximized else (score < best):
            self.best_weights.copy_(weights)
            best.fill_(score)
            self.waited.zero_()
        if over or (self.patience is not None and self.waited >= self.patience):
            weights.copy_(self.best_weights)
            self.trainer.should_stop = True
            self.waited.zero_()
        self.log_metrics({f"train/held_out_{name}": score})
