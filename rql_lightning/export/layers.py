"""Networks of linear layers with ReLUs in between, as numbers: combined into one that computes the same.

All of it is in float64, so that numbers are rounded once, when the combination becomes float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rql_lightning.policies import Encoder

Layer = tuple[Tensor, Tensor]
"""Weight ``[out, in]`` and bias ``[out]``."""
Layers = list[Layer]
"""Linear layers, with a ReLU between each two of them."""


def layers_of(network: nn.Module) -> Layers | None:
    """Return the layers of a network, or ``None`` if it consists of anything but linear layers with ReLUs in between.

    Args:
        network: A network, perhaps of sequential ones.
    """
    parts = [part for part in network.modules() if not isinstance(part, nn.Sequential)]
    kinds = [nn.Linear, nn.ReLU] * (len(parts) // 2) + [nn.Linear]
    if [type(part) for part in parts] != kinds:
        return None
    linear = [part for part in parts if isinstance(part, nn.Linear)]
    return [(part.weight.detach().double(), part.bias.detach().double()) for part in linear]


def after_encoder(encoder: Encoder, layers: Layers) -> Layers:
    """Return layers that take observations instead of what an encoder without goals makes of them.

    W (x − m) / h + b = (W / h) x + b − (W / h) m.
    """
    weight, bias = layers[0]
    weight = weight / encoder.half_width.double()
    return [(weight, bias - weight @ encoder.middle.double()), *layers[1:]]


def scaled(layers: Layers, factor: float) -> Layers:
    """Return layers whose outputs are multiplied by a number."""
    weight, bias = layers[-1]
    return [*layers[:-1], (factor * weight, factor * bias)]


def centred(layers: Layers) -> Layers:
    """Return layers from whose outputs their mean is subtracted, which a softmax of them does not see."""
    weight, bias = layers[-1]
    return [*layers[:-1], (weight - weight.mean(dim=0), bias - bias.mean())]


def added(first: Layers, second: Layers) -> Layers:
    """Return layers whose outputs are the sum of those of two networks of the same inputs, which run side by side."""
    depth = max(len(first), len(second))
    first, second = _deepened(first, depth), _deepened(second, depth)
    (weight, bias), (other_weight, other_bias) = first[-1], second[-1]
    if depth == 1:
        return [(weight + other_weight, bias + other_bias)]
    weights = [torch.block_diag(one[0], other[0]) for one, other in zip(first[:-1], second[:-1], strict=True)]
    weights[0] = torch.cat([first[0][0], second[0][0]])
    biases = [torch.cat([one[1], other[1]]) for one, other in zip(first[:-1], second[:-1], strict=True)]
    last = (torch.cat([weight, other_weight], dim=1), bias + other_bias)
    return [*zip(weights, biases, strict=True), last]


def _deepened(layers: Layers, depth: int) -> Layers:
    """Return as many layers as wanted: x = relu(x) − relu(−x), and relu(x) = x for what a ReLU has returned."""
    if len(layers) == depth:
        return layers
    if len(layers) == 1:
        weight, bias = layers[0]
        identity = torch.eye(len(bias), dtype=torch.float64)
        layers = [
            (torch.cat([weight, -weight]), torch.cat([bias, -bias])),
            (torch.cat([identity, -identity], dim=1), torch.zeros_like(bias)),
        ]
    width = layers[-1][0].shape[1]
    passing = (torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))
    return [*layers[:-1], *[passing] * (depth - len(layers)), layers[-1]]


def with_floor(layers: Layers, floor: float) -> tuple[Layers, Layer, Layer]:
    """Return layers of a location, and of a log-scale that is bounded from below: max(x, c) = c + relu(x − c).

    Args:
        layers: Layers that return location and log-scale, ``[..., 2 A]``.
        floor: Lower bound c of the log-scale.

    Returns:
        Hidden layers, all with a ReLU after them, the layer of the location and that of the log-scale, ``[..., A]``.
    """
    (location, log_scale), (bias, log_scale_bias) = (each.chunk(2) for each in layers[-1])
    hidden = (torch.cat([location, -location, log_scale]), torch.cat([bias, -bias, log_scale_bias - floor]))
    size, zero = len(bias), torch.zeros(len(bias), len(bias), dtype=torch.float64)
    one = torch.eye(size, dtype=torch.float64)
    return (
        [*layers[:-1], hidden],
        (torch.cat([one, -one, zero], dim=1), torch.zeros_like(bias)),
        (torch.cat([zero, zero, one], dim=1), torch.full_like(bias, floor)),
    )


def widths(layers: Layers) -> list[int]:
    """Return the width of each layer's output."""
    return [len(bias) for _, bias in layers]
