"""The protocol of everything that acts: policies use observations, planners use the environments' states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Decision:
    """Actions for N environments, and information on the distribution behind them.

    Attributes:
        action: Elements of the action space, in the environment's units, ``[N, *action_shape]``.
        kl_to_prior: KL(policy ‖ prior) in nats at each state, ``[N]``; ``None`` without a prior.
    """

    action: np.ndarray
    kl_to_prior: np.ndarray | None = None


class Decider(Protocol):
    """Protocol of objects that can be evaluated and recorded.

    Attributes:
        needs_state: Whether :meth:`decide` requires the environments' states, as planners do. Such a decider may have a
            method ``read_state(env, observation)`` that returns them.
    """

    needs_state: bool

    def decide(self, observation: Any, state: Any = None) -> Decision:
        """Choose actions deterministically.

        Args:
            observation: Observations of N environments, ``[N, *observation_shape]``.
            state: If ``needs_state``, the environments' states, by default the result of the vector environment's
                ``get_state()``; otherwise ``None``.
        """
        ...
