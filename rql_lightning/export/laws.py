"""The law of a policy, alone: what of a policy is exported, and whether what was exported has the same law."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rql_lightning.errors import UnsupportedFormatError
from rql_lightning.loading import KINDS, CheckpointPrior, build_policy
from rql_lightning.policies import Flow, NetworkPolicy, Policy, Samples
from rql_lightning.priors import FunctionPrior, SamplerPrior
from rql_lightning.spaces import observation_scale

ROWS = 64
TOLERANCE = 1e-4
"""Largest difference, relative to 1 + |value|, of an output that is taken for rounding."""


class Law(nn.Module):
    """A policy as a function of observations: encoder, networks, prior, squashing and units of actions are inside.

    Args:
        policy: Policy of a family that has a deterministic action.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[N, *observation_shape]`` to actions ``[N, *action_shape]`` and the law's parameters ``[N, P]``."""
        parameters = self.policy.distribution_parameters(observation)
        return self.policy.mode(parameters), parameters


def on_cpu(policy: Policy) -> Policy:
    """Return the policy itself, or a copy on the CPU of a policy on another device."""
    tensors = [*policy.parameters(), *policy.buffers()]
    return policy if all(each.device.type == "cpu" for each in tensors) else copy.deepcopy(policy).cpu()


def alone(policy: Policy) -> Policy:
    """Return the policy without what its law does not depend on: the prior of an actor, or the wrapper of a prior."""
    if isinstance(policy, CheckpointPrior):
        return alone(policy.policy)
    if not isinstance(policy, NetworkPolicy) or policy.prior is None or type(policy).__name__ not in KINDS:
        return policy
    actor = build_policy({**policy.describe(), "prior": None})
    weights = {name: value for name, value in policy.state_dict().items() if not name.startswith("prior.")}
    actor.load_state_dict(weights)
    return actor.eval().requires_grad_(False)


def untraceable(policy: Policy) -> str | None:
    """Return the part of a policy that is no function of tensors without random numbers, or ``None`` if there is none.

    Args:
        policy: A policy, as :func:`alone` returns it.
    """
    if isinstance(policy, FunctionPrior | SamplerPrior):
        return f"the function {policy.name}, which is code"
    if not policy.can_act:
        return f"a {type(policy.family).__name__}, which has no actions"
    if isinstance(policy.family, Samples | Flow):
        return f"the law {type(policy.family).__name__}, whose action is the best of random candidates"
    return None if policy.prior is None or isinstance(policy, NetworkPolicy) else untraceable(policy.prior)


def observations(policy: Policy, rows: int = ROWS) -> Tensor:
    """Return reproducible observations, ``[rows, *observation_shape]``, that the policy tells apart.

    They are within the bounds of the policy's space, and within two standard deviations of what was observed where the
    encoder normalises by that.
    """
    middle, half_width = observation_scale(policy.observation_space)
    encoder = getattr(policy, "encoder", None)
    if encoder is not None and encoder.running is not None:
        chosen = torch.tensor(encoder.running)
        middle = torch.where(chosen, encoder.middle, middle)
        half_width = torch.where(chosen, 2.0 * encoder.half_width, half_width)
    unit = torch.rand(rows, len(middle), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    return (middle + half_width * unit).reshape(rows, *(policy.observation_space.shape or ()))


@torch.no_grad()
def check_same_law(policy: Policy, exported: Callable[[Tensor], Sequence[Tensor]], what: str) -> None:
    """Compare an exported policy with the policy that it was made of.

    Args:
        policy: The policy.
        exported: Function with the arguments and results of :meth:`Law.forward`.
        what: What was exported, for the message.

    Raises:
        UnsupportedFormatError: If actions or parameters differ by more than rounding.
    """
    rows = observations(policy)
    (action, parameters), (their_action, their_parameters) = Law(policy)(rows), exported(rows)
    if policy.bounds is None:  # rounding may choose another of several most probable actions
        action, their_action = (parameters.gather(-1, each.unsqueeze(-1)) for each in (action, their_action))
    for name, ours, theirs in (("actions", action, their_action), ("parameters", parameters, their_parameters)):
        difference = ((theirs.double() - ours.double()).abs() / (1.0 + ours.double().abs())).max()
        if not bool(difference <= TOLERANCE):
            raise UnsupportedFormatError(
                f"{what}: found {name} that differ from the policy's by {float(difference):.2g} of their size, "
                f"expected at most {TOLERANCE:g} (its numbers are too large for float32 here, or it draws random ones)"
            )
