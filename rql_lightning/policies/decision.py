"""What acts is asked to decide: a policy looks at observations, a planner at the environments' states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Decision:
    """What was decided for N environments, and what is known of the law behind it.

    Attributes:
        action: Elements of the action space, in the environment's units, ``[N, *action_shape]``.
        kl_to_prior: KL(policy ‖ prior) in nats at each state, ``[N]``; ``None`` where there is no prior.
    """

    action: np.ndarray
    kl_to_prior: np.ndarray | None = None


class Decider(Protocol):
    """Whatever can be evaluated, filmed and recorded.

    Attributes:
        needs_state: Whether :meth:`decide` looks at the environments' states; policies do not, planners do.
    """

    needs_state: bool

    def decide(self, observation: Any, state: Any = None) -> Decision:
        """Decide deterministically.

        Args:
            observation: Of N environments, ``[N, *observation_shape]``.
            state: What the vector environment's ``get_state()`` returned, if ``needs_state``.
        """
        ...
