"""Priors over discrete actions in compiled code: one observation at a time, without the calls of a tensor library.

A search asks its prior hundreds of times in a row for one state each, where the calls take ten times as long as the
arithmetic. Results equal those of the policy's own network up to rounding, and do not depend on the size of a batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import nn

from rql_lightning.compilation import entry_point
from rql_lightning.networks import RowNetwork
from rql_lightning.policies import Categorical, NetworkPolicy, Policy, SoftQPolicy


class Network(NamedTuple):
    """A network of linear layers and ReLUs from an observation to the log-probabilities of actions.

    Attributes:
        weights: All weights ``[in, out]`` and biases ``[out]``, layer after layer, flat.
        head, embedding: Widths of the layers, from the input to the output; ``embedding`` is empty without rows.
        rows: Number of rows of the observation (:class:`~rql_lightning.networks.RowNetwork`), 0 for none.
        middle, half_width: Of the encoder, ``[D]``.
        temperature: Divisor of the outputs.
    """

    weights: np.ndarray
    head: np.ndarray
    embedding: np.ndarray
    rows: int
    middle: np.ndarray
    half_width: np.ndarray
    temperature: float


def compiled_network(policy: Policy) -> Network | None:
    """Return the network of a policy over discrete actions, or ``None`` for a policy that has another form."""
    policy = getattr(policy, "policy", policy)  # of a CheckpointPrior
    if not isinstance(policy.family, Categorical):
        return None
    if isinstance(policy, SoftQPolicy) and policy.prior is None:
        module: nn.Module = policy.q_network
        temperature = float(policy.alpha_hat)
    elif isinstance(policy, NetworkPolicy):
        module, temperature = policy.network, 1.0
    else:
        return None
    encoder = policy.encoder
    if not encoder.is_affine:
        return None
    embedding, head = nn.Sequential(), module
    if isinstance(module, RowNetwork):
        embedding, head = module.embedding[0], module.head  # type: ignore[assignment]
    assert isinstance(head, nn.Sequential)
    layers = [layer for part in (embedding, head) for layer in part if isinstance(layer, nn.Linear)]
    arrays = [array for layer in layers for array in (layer.weight.detach().T, layer.bias.detach())]
    return Network(
        torch.cat([array.reshape(-1) for array in arrays]).cpu().numpy(),
        _widths(head),
        _widths(embedding),
        module.rows if isinstance(module, RowNetwork) else 0,
        encoder.middle.cpu().numpy(),
        encoder.half_width.cpu().numpy(),
        temperature,
    )


def _widths(part: nn.Sequential) -> np.ndarray:
    layers = [layer for layer in part if isinstance(layer, nn.Linear)]
    return np.array([layer.in_features for layer in layers[:1]] + [layer.out_features for layer in layers], np.int64)


@njit(fastmath=True)
def _linear(weights: np.ndarray, start: int, x: np.ndarray, outputs: int, relu: bool) -> np.ndarray:
    """Return a linear layer, whose weights start at an index, of ``x [in]``; zeros, which ReLUs make, cost nothing."""
    result, bias = np.empty(outputs, dtype=np.float32), start + len(x) * outputs
    for j in range(outputs):
        result[j] = weights[bias + j]
    for i in range(len(x)):
        value = x[i]
        if value != 0.0:
            row = start + i * outputs
            for j in range(outputs):
                result[j] += value * weights[row + j]
    if relu:
        for j in range(outputs):
            result[j] = max(result[j], np.float32(0.0))
    return result


@njit
def layers(weights: np.ndarray, start: int, widths: np.ndarray, x: np.ndarray, relu_last: bool) -> np.ndarray:
    """Return layers of these widths, whose weights start at an index, of ``x [widths[0]]``."""
    last = len(widths) - 2
    for layer in range(last + 1):
        x = _linear(weights, start, x, widths[layer + 1], relu_last or layer < last)
        start += (widths[layer] + 1) * widths[layer + 1]
    return x


@njit
def _pooled(network: Network, x: np.ndarray) -> np.ndarray:
    """Return the first row of an observation with the mean and the maximum of the embeddings of the others."""
    width, last = len(x) // network.rows, network.embedding[-1]
    pair = np.empty(2 * width, dtype=np.float32)
    pooled = np.zeros(width + 2 * last, dtype=np.float32)
    for column in range(width):
        pair[column] = pooled[column] = x[column]
    for row in range(1, network.rows):
        for column in range(width):
            pair[width + column] = x[row * width + column]
        embedded = layers(network.weights, 0, network.embedding, pair, True)
        for j in range(last):
            pooled[width + j] += embedded[j] / np.float32(network.rows - 1)
            pooled[width + last + j] = max(pooled[width + last + j], embedded[j])  # embeddings are at least 0
    return pooled


@entry_point
def log_probabilities(network: Network, observation: np.ndarray, result: np.ndarray) -> None:
    """Write the log-probabilities of all actions ``[A]`` at a flat observation ``[D]``."""
    x = np.empty(len(observation), dtype=np.float32)
    for column in range(len(x)):
        x[column] = (np.float32(observation[column]) - network.middle[column]) / network.half_width[column]
    start = 0
    if network.rows > 0:
        x = _pooled(network, x)
        for layer in range(len(network.embedding) - 1):
            start += (network.embedding[layer] + 1) * network.embedding[layer + 1]
    outputs = layers(network.weights, start, network.head, x, False)
    total, highest = 0.0, -math.inf
    for j in range(len(result)):
        highest = max(highest, float(outputs[j]))
    for j in range(len(result)):
        result[j] = (float(outputs[j]) - highest) / network.temperature
        total += math.exp(result[j])
    for j in range(len(result)):
        result[j] -= math.log(total)


def _all_log_probabilities(network: Network, observations: np.ndarray, results: np.ndarray) -> None:
    for row in range(len(observations)):
        log_probabilities(network, observations[row], results[row])


all_log_probabilities = entry_point(_all_log_probabilities)
"""``(network, observations [n, D], results [n, A])``: write the log-probabilities of all actions."""
