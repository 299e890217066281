"""Errors of a learned model on episodes that it was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from rql_lightning.data.demonstrations import Demonstrations
    from rql_lightning.planning.ensemble import DynamicsNetwork

MOST_TRANSITIONS = 20_000
"""Number of held-out transitions that errors are computed on, the first ones."""


@torch.no_grad()
def held_out_errors(network: DynamicsNetwork, episodes: Demonstrations, steps: int) -> dict[str, float]:
    """Return the errors of the mean prediction of an ensemble.

    Args:
        network: Ensemble.
        episodes: Episodes that it was not trained on.
        steps: Number of steps H of repeated predictions, each from the one before.

    Returns:
        By name (docs/metrics.md): errors of the successor after one and after H steps, in the units of observations and
        relative to those of "nothing changes"; log-loss, precision and recall of the termination; disagreement. Left
        out are those that are not defined: after H steps where no episode is as long, precision without a predicted
        termination, recall without one that happened.
    """
    transitions = episodes.transitions[:MOST_TRANSITIONS]
    device = network.change_scale.device
    observation = transitions["observation"].flatten(1).float().to(device)
    following = transitions["next", "observation"].flatten(1).float().to(device)
    action = transitions["action"].to(device)
    terminated = transitions["next", "terminated"].reshape(-1).to(device)
    successors, probabilities = network.successors(observation, action)
    one = _errors(network, observation, successors.mean(dim=0), following)
    disagreement = (successors / network.change_scale).std(dim=0, correction=0).mean()
    result = {"held_out_error": one[0], "held_out_relative_error": one[1], "held_out_disagreement": disagreement.item()}
    start = _starts(episodes.episode[: len(transitions)], steps).to(device)
    if len(start) > 0:
        reached = observation[start]
        for step in range(steps):
            successor = network.successors(reached, action[start + step])[0].mean(dim=0)
            reached = network.in_order(successor)
        several = _errors(network, observation[start], reached, following[start + steps - 1])
        result |= {"held_out_open_loop_error": several[0], "held_out_open_loop_relative_error": several[1]}
    return {**result, **_termination(probabilities.mean(dim=0), terminated)}


def _errors(network: DynamicsNetwork, observation: Tensor, predicted: Tensor, reached: Tensor) -> tuple[float, float]:
    """Return the mean absolute error of predictions ``[F, D]``, and its ratio to that of ``observation``."""
    scale = network.change_scale
    errors = [
        (network.matched(reached / scale, guess / scale) * scale - guess).abs().mean().item()
        for guess in (predicted, observation)
    ]
    return errors[0], errors[0] / max(errors[1], 1e-12)


def _starts(episode: Tensor, steps: int) -> Tensor:
    """Return the transitions that are followed by at least H − 1 more of their episode."""
    count = max(0, len(episode) - steps + 1)
    return (episode[:count] == episode[steps - 1 :][:count]).nonzero().squeeze(1)


def _termination(probability: Tensor, terminated: Tensor) -> dict[str, float]:
    predicted, truth = probability > 0.5, terminated.to(probability.dtype)
    loss = functional.binary_cross_entropy(probability.clamp(1e-7, 1 - 1e-7), truth).item()
    result = {"held_out_termination_log_loss": loss}
    if bool(predicted.any()):
        result["held_out_termination_precision"] = truth[predicted].mean().item()
    if bool(terminated.any()):
        result["held_out_termination_recall"] = predicted[terminated].float().mean().item()
    return result
