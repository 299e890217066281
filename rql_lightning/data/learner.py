"""The interface of algorithms to data collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class Learner(Protocol):
    """An algorithm as the collector and the replay buffer see it.

    Attributes:
        explored: Names of the entries that :meth:`explore` returns and the replay buffer stores.
        annotation: Settings that decide what :meth:`annotate` adds: a replay buffer is not resumed with others.
        noise_state: State of the exploration noise between steps, stored for exact resume; ``None`` without a state.
    """

    explored: tuple[str, ...]
    annotation: Mapping[str, Any]
    noise_state: Tensor | None

    @property
    def device(self) -> torch.device:
        """Device on which :meth:`explore` runs."""

    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """Choose actions for data collection at float32 observations ``[N, *observation_shape]``.

        Returns:
            ``action``, ``[N, *action_shape]`` in the environment's units, and every other entry named in ``explored``,
            ``[N, ...]``.
        """

    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Add entries that are computed once per state to the frames of one turn, before they are stored.

        Args:
            frames: Frames ``[N, T]`` (environments × time) with ``observation``, the entries named in ``explored``, and
                the successor's ``observation``, ``reward`` and ``terminated``. Observations are float32.

        Returns:
            The frames to store, ``[N, T]``.
        """
