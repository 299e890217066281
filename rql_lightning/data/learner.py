"""What collecting frames needs of an algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class Learner(Protocol):
    """An algorithm as the collector and the replay buffer see it.

    Attributes:
        explored: The keys of what :meth:`explore` returns; the replay buffer keeps them.
        noise_state: What exploration remembers from step to step, for exact resume; ``None`` for nothing.
    """

    explored: tuple[str, ...]
    noise_state: Tensor | None

    @property
    def device(self) -> torch.device:
        """Where :meth:`explore` runs."""

    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """How to act for data collection at float32 observations ``[N, *observation_shape]``.

        Returns:
            ``action``, ``[N, *action_shape]`` in the environment's units, and whatever else ``explored`` names,
            ``[N, ...]``.
        """

    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Add to the frames of one turn what is computed once per state, before they enter the replay buffer.

        Args:
            frames: ``[N, T]``, environments × time: ``observation``, what ``explored`` names, and of the successor
                ``observation``, ``reward`` and ``terminated``. Observations are float32.

        Returns:
            The frames to keep, ``[N, T]``.
        """
