"""The networks that algorithms train."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(inputs: int, hidden_sizes: Sequence[int], outputs: int) -> nn.Sequential:
    """A multilayer perceptron with ReLU between its layers.

    Args:
        inputs: Size of the input, ``[..., inputs]``.
        hidden_sizes: Width of each hidden layer.
        outputs: Size of the output, ``[..., outputs]``.

    Returns:
        The module, with PyTorch's own initialisation.
    """
    sizes = [inputs, *hidden_sizes]
    layers: list[nn.Module] = []
    for width, next_width in pairwise(sizes):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))
