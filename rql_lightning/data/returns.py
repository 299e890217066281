"""Returns and lengths of training episodes, from the rewards that the collector sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class TrainingReturns:
    """Sums rewards over episodes, which may extend over several turns of the collector.

    Args:
        num_envs: Number of environments N.

    Attributes:
        running: Undiscounted return and length of each environment's episode so far, float64 ``[2, N]``; NaN for
            episodes whose beginning is unknown.
    """

    def __init__(self, num_envs: int) -> None:
        self.running = np.zeros((2, num_envs))
        self._finished: list[np.ndarray] = []

    def add(self, reward: np.ndarray, done: np.ndarray) -> None:
        """Account for a turn.

        Args:
            reward: ``[N, T]``.
            done: Where episodes ended, bool ``[N, T]``.
        """
        # Return and length since the start of the turn, [2, N, T]; an episode is what lies between two ends.
        sums = np.cumsum(np.stack([reward, np.ones_like(reward)]), axis=2, dtype=np.float64)
        rows, columns = np.nonzero(done)  # sorted by environment, then by time
        ends, begins = sums[:, rows, columns], -self.running[:, rows]
        same = rows[1:] == rows[:-1]
        begins[:, 1:][:, same] = ends[:, :-1][:, same]
        finished = ends - begins
        self._finished.append(finished[:, np.isfinite(finished).all(axis=0)])
        self.running = self.running + sums[..., -1]
        last = np.append(~same, True)[: len(rows)]
        self.running[:, rows[last]] = sums[:, rows[last], -1] - ends[:, last]

    def pop(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns and lengths of the episodes that ended since the last call, float64 and int64 ``[episodes]``."""
        returns, lengths = self._joined()
        self._finished = []
        return returns, lengths.astype(np.int64)

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors that :meth:`restore` goes on from. (When finished episodes are handed out is no part of training.)"""
        return {"running": torch.from_numpy(self.running.copy())}

    def restore(self, state: dict[str, Any] | None, same_episodes: bool) -> None:
        """Restore the result of :meth:`state`.

        Args:
            state: State to restore; ``None`` if the checkpoint has none.
            same_episodes: Whether the environments resume the stored episodes instead of starting new ones.
        """
        if same_episodes:
            self.running[:] = np.nan if state is None else state["running"].numpy()

    def _joined(self) -> np.ndarray:
        return np.concatenate([np.empty((2, 0)), *self._finished], axis=1)
