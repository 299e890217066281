"""An actor of SAC or TQC as a policy of this library, from whose weights another actor can start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rql_lightning.policies import SquashedGaussianPolicy
from rql_lightning.priors.stable_baselines3.architecture import ContinuousNetwork

if TYPE_CHECKING:
    from rql_lightning.priors.stable_baselines3.prior import StableBaselines3Prior


def actor_of(prior: StableBaselines3Prior) -> SquashedGaussianPolicy | None:
    """Return a policy with the law of an attached prior, or ``None`` if its network has another form than an actor.

    The law is the same where the log-scale is within the narrower bounds of this library's policies.
    """
    network, architecture = prior.network, prior.architecture
    plain = architecture.squashed and architecture.scale == "network" and architecture.mean_limit is None
    if not plain or architecture.activation != "ReLU" or prior.normalization is not None:
        return None
    assert isinstance(network, ContinuousNetwork) and isinstance(network.log_scale, torch.nn.Linear)
    hidden = [int(width) for width in architecture.sizes[1:-1]]
    policy = SquashedGaussianPolicy(prior.observation_space, prior.action_space, hidden, temperature=prior.temperature)
    linear = [layer for layer in policy.network.modules() if isinstance(layer, torch.nn.Linear)]
    given = [layer for layer in network.hidden.modules() if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for own, other in zip(linear, given, strict=False):
            own.load_state_dict(other.state_dict())
        for name in ("weight", "bias"):
            heads = [getattr(head, name) for head in (network.head, network.log_scale)]
            getattr(linear[-1], name).copy_(torch.cat(heads))
        # x = h c + m, where c is what the encoder makes of an observation x: W x + b = (W h) c + (W m + b).
        first, encoder = linear[0], policy.encoder
        first.bias.add_(first.weight.double() @ encoder.middle.double())
        first.weight.mul_(encoder.half_width)
    return policy.eval().requires_grad_(False)
