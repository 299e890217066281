"""The gradients of an actor-critic's update in closed form: the losses' own, without a graph of autograd."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.sac_terms import Coefficients, Inputs, Sample, sampled
from rql_lightning.policies.families import LOG_SCALE_RANGE

if TYPE_CHECKING:
    from rql_lightning.algorithms.sac import SoftActorCritic


BELOW, ABOVE = (
    float(np.nextafter(np.float32(bound), np.float32(math.copysign(9, bound)))) for bound in LOG_SCALE_RANGE
)
"""Bounds of the log-scale for the gradient through its clamp: that of torch.clamp is 1 at the bounds too."""


def gradients(
    learner: SoftActorCritic, inputs: Inputs, optimizer: Any, warming_up: bool
) -> tuple[Sample, dict[str, Tensor]]:
    """Compute the gradients of a learner's losses, and assign them to the optimizer; arguments as for its method."""
    minibatch, states, taken, noise, parameters = inputs
    network: Any = learner.policy.network
    critic, written = learner.critic, optimizer.optimizer.gradients
    alpha_hat = learner.log_alpha.exp()
    # Actions at s and s′, in one pass
    outputs, hidden = network.evaluate(states)
    location, raw = outputs.chunk(2, dim=-1)
    sample, scale = sampled(location, raw.clamp(*LOG_SCALE_RANGE), noise)
    own_log_prob, next_log_prob = sample.log_prob.chunk(2)
    own_inputs, next_inputs = torch.cat([states, sample.action], dim=-1).chunk(2)
    weights = learner.coefficients(alpha_hat)
    prior, next_prior, prior_gradient = _prior_terms(learner, parameters, sample, weights)
    # Targets (Eq. 8 and 9)
    next_q = learner.target_critic.evaluate(next_inputs)[0].amin(dim=0)
    weighted = functional.weighted_log_prob(next_prior, weights.target_prior)
    v_next = functional.actor_critic_value(next_q, next_log_prob, alpha_hat, weighted)
    q_target = functional.residual_target(minibatch.reward, minibatch.terminated, v_next, learner.gamma)
    # Critics (Eq. 7)
    q_taken, trace = critic.evaluate(taken)
    critic.backward(trace, learner.critic_gradient(minibatch, q_target, q_taken), written(0))
    # Actor (Eq. 10)
    q, trace = critic.evaluate(own_inputs)
    smaller, size, actions = q.amin(dim=0), q.shape[-1], noise.shape[-1]
    of_action = critic.action_gradient(trace, functional.minimum_gradient(q, smaller), actions)
    own = (noise[:size], sample.action[:size], scale[:size], of_action)
    of_location, of_log_scale = functional.actor_gradient(*own, weights.entropy, prior_gradient, weights.actor_prior)
    of_raw = torch.ops.aten.hardtanh_backward(of_log_scale, raw[:size], BELOW, ABOVE)
    gradient = torch.cat([of_location, of_raw], dim=-1)
    network.backward([each[:size] for each in hidden], gradient, written(1))
    # Temperature
    if learner.alpha == "auto":
        written(2)[0].copy_(functional.temperature_gradient(own_log_prob, learner.entropy_goal))
    optimizer.optimizer.adopt(1 if warming_up else 2 + (learner.alpha == "auto"), learner.average)
    terms = {"q_taken": q_taken, "q_target": q_target, "q": smaller, "log_prob": own_log_prob, "alpha": alpha_hat}
    return sample, terms if prior is None else {**terms, "prior": prior}


def _prior_terms(
    learner: SoftActorCritic, parameters: Tensor | None, sample: Sample, weights: Coefficients
) -> tuple[Any, Any, Any]:
    """Return log π at s and at s′, ``[B]``, and its gradient at s, ``[B, A]``; ``None`` where it has no weight."""
    if weights.without_prior:
        return None, None, None
    log_prob, gradient = learner.prior_log_prob_and_gradient(parameters, sample.squashed)
    at_state, at_next_state = log_prob.chunk(2)
    return at_state, at_next_state, gradient.chunk(2)[0]


def summarized(learner: SoftActorCritic, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the metrics of K updates from the terms of each, ``[K, …]``."""
    weights = learner.coefficients(terms["alpha"].unsqueeze(-1))
    weighted = functional.weighted_log_prob(terms.get("prior"), weights.actor_prior)
    q_target = terms["q_target"].unsqueeze(1).expand_as(terms["q_taken"])
    return {
        "critic_loss": 2.0 * functional.td_loss(terms["q_taken"], q_target),
        "actor_loss": functional.actor_loss(terms["log_prob"], terms["q"], weights.entropy, weighted),
        "alpha": terms["alpha"],
        "q_mean": terms["q_taken"],
        "log_prob": terms["log_prob"],
    }
