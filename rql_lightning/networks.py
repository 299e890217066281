"""The networks that algorithms train."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector


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


@torch.no_grad()
def share_memory(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Move parameters into one vector, of which they become views.

    An optimizer on the vector then makes one step of one tensor where it would make one for each parameter: a tenth of
    an update of small networks. Loading and saving the parameters works as before; moving their module to another
    device or type afterwards breaks the bond.

    Args:
        parameters: On one device and of one type.

    Returns:
        The vector ``[parameters' elements]``, a leaf that takes ``grad``.
    """
    vector = parameters_to_vector(parameters).clone()
    pieces = vector.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.data = piece.view_as(parameter)
    return vector.requires_grad_()
