"""The equations of *Residual Q-Learning* (NeurIPS 2023), each as one pure function, with the gradient of each loss.

All functions take tensors with arbitrary leading batch dimensions ``...``. ``omega_prime`` is ω′ = ωα and ``alpha_hat``
is α̂; each is a number, or a tensor that broadcasts over the batch ``...``. A soft Q-function without a prior (Haarnoja
et al. 2017) is the case ω′ = 0. Gradients (``…_gradient``) are for training loops that do without autograd.
"""

from rql_lightning.functional.continuous import (
    Squashed,
    actor_critic_value,
    actor_gradient,
    actor_loss,
    minimum_gradient,
    reparameterised_log_prob,
    squash,
    squash_log_det,
    squashed_gaussian_log_prob,
    squashed_gaussian_log_prob_and_gradient,
    temperature_gradient,
    temperature_loss,
)
from rql_lightning.functional.discrete import (
    Weight,
    combine_with_prior,
    greedy_policy_log_prob,
    greedy_value,
    policy_log_prob,
    residual_backup,
    residual_target,
    residual_value,
    residual_value_gradient,
    td_loss,
    td_slope,
    weighted_log_prob,
)
from rql_lightning.functional.imitation import (
    RewardKind,
    imitation_reward,
    iq_gradient,
    iq_loss,
)
from rql_lightning.functional.sampled import (
    empirical_log_prob,
    resampling_log_weights,
    sampled_divergence,
    sampled_value,
)

__all__ = [
    "RewardKind",
    "Squashed",
    "Weight",
    "actor_critic_value",
    "actor_gradient",
    "actor_loss",
    "combine_with_prior",
    "empirical_log_prob",
    "greedy_policy_log_prob",
    "greedy_value",
    "imitation_reward",
    "iq_gradient",
    "iq_loss",
    "minimum_gradient",
    "policy_log_prob",
    "reparameterised_log_prob",
    "resampling_log_weights",
    "residual_backup",
    "residual_target",
    "residual_value",
    "residual_value_gradient",
    "sampled_divergence",
    "sampled_value",
    "squash",
    "squash_log_det",
    "squashed_gaussian_log_prob",
    "squashed_gaussian_log_prob_and_gradient",
    "td_loss",
    "td_slope",
    "temperature_gradient",
    "temperature_loss",
    "weighted_log_prob",
]
