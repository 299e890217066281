"""The networks that algorithms train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rql_lightning.errors import require

NORM = (None, None, 1e-5)
"""Scale, shift and epsilon of PyTorch's layer norm."""


def mlp(inputs: int, hidden_sizes: Sequence[int], outputs: int) -> nn.Sequential:
    """Build a multilayer perceptron with ReLU activations.

    Args:
        inputs: Size of the input, ``[..., inputs]``.
        hidden_sizes: Width of each hidden layer.
        outputs: Size of the output, ``[..., outputs]``.

    Returns:
        The module, with PyTorch's default initialisation.
    """
    sizes = [inputs, *hidden_sizes]
    layers: list[nn.Module] = []
    for width, next_width in pairwise(sizes):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


class RowNetwork(nn.Module):
    """A network of observations that consist of rows, all but the first of which are a set (Zaheer et al. 2017).

    Each further row is embedded together with the first one by the same layers. The mean and the maximum of the
    embeddings do not depend on the order of the rows.

    Args:
        inputs: Size of the input, ``[..., inputs]``.
        rows: Number of rows R, which divides ``inputs``.
        hidden_sizes: Width of each hidden layer, of the embedding as well as of the layers after it.
        outputs: Size of the output, ``[..., outputs]``.

    Raises:
        ConfigurationError: If the input cannot be divided into the rows.
    """

    def __init__(self, inputs: int, rows: int, hidden_sizes: Sequence[int], outputs: int) -> None:
        super().__init__()
        expected = f"at least 2 and a divisor of the {inputs} numbers of an observation"
        require(rows >= 2 and inputs % rows == 0, "model.rows", rows, expected)
        self.rows, width = rows, inputs // rows
        *inner, last = hidden_sizes
        self.embedding = nn.Sequential(mlp(2 * width, inner or [last], last), nn.ReLU())
        self.head = mlp(width + 2 * last, hidden_sizes, outputs)

    def forward(self, code: Tensor) -> Tensor:
        """Map ``[..., inputs]`` to ``[..., outputs]``."""
        first, others = code.unflatten(-1, (self.rows, -1)).split([1, self.rows - 1], dim=-2)
        embedded = self.embedding(torch.cat([first.expand_as(others), others], dim=-1))
        pooled = torch.cat([first.squeeze(-2), embedded.mean(dim=-2), embedded.amax(dim=-2)], dim=-1)
        return self.head(pooled)


class Discriminator(nn.Module):
    """A network that returns the logit of the probability that its input was demonstrated, with normalised inputs.

    Args:
        inputs: Size of the input I, ``[..., I]``.
        hidden_sizes: Width of each hidden layer.
        spectral_norm: Whether the layers' spectral norms are kept at 1 (Miyato et al. 2018).

    Attributes:
        size: Size of the input.
        mean, variance, count: Running moments of the inputs, ``[I]``, and how many inputs they are of.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, inputs: int, hidden_sizes: Sequence[int], spectral_norm: bool = False) -> None:
        super().__init__()
        self.size, self.network = inputs, mlp(inputs, hidden_sizes, 1)
        if spectral_norm:
            for layer in self.network:
                if isinstance(layer, nn.Linear):
                    nn.utils.parametrizations.spectral_norm(layer)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("variance", torch.ones(inputs))
        self.register_buffer("count", torch.tensor(0.0))

    @torch.no_grad()
    def observe(self, inputs: Tensor, average: Callable[[Tensor], Tensor]) -> None:
        """Add a batch to the running moments (Chan et al. 1979).

        Args:
            inputs: Batch ``[n, I]``.
            average: Function that averages the batch's moments over the ranks.
        """
        middle = average(inputs.mean(dim=0))
        within = average((inputs - middle).square().mean(dim=0))
        total = self.count + len(inputs)
        share = len(inputs) / total
        difference = middle - self.mean
        self.variance.copy_((1 - share) * self.variance + share * within + share * (1 - share) * difference.square())
        self.mean.add_(share * difference)
        self.count.copy_(total)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[..., I]`` to logits ``[...]``."""
        return self.network((inputs - self.mean) / (self.variance + 1e-6).sqrt()).squeeze(-1)

    def gradient_penalty(self, inputs: Tensor) -> Tensor:
        """Return the mean of (‖∂ logit / ∂ normalised input‖ − 1)² (Gulrajani et al. 2017), scalar, differentiable.

        Args:
            inputs: Inputs between demonstrated and collected ones, ``[n, I]``.
        """
        normalised = ((inputs - self.mean) / (self.variance + 1e-6).sqrt()).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.network(normalised).sum(), normalised, create_graph=True)
        return (gradient.norm(dim=-1) - 1.0).square().mean()


class TwinCritic(nn.Module):
    """Two Q-networks (or Q_R-networks) of the same shape, evaluated together with one batched product per layer.

    Args:
        inputs: Size of the concatenated observation and action.
        hidden_sizes: Width of each hidden layer.
        layer_norm: Whether each hidden layer is normalised (without scale and shift) before its ReLU, which limits
            extrapolation (Ball et al., *Efficient Online Reinforcement Learning with Offline Data*, 2023).
    """

    def __init__(self, inputs: int, hidden_sizes: Sequence[int], layer_norm: bool = False) -> None:
        super().__init__()
        self.layer_norm = layer_norm
        twins = [mlp(inputs, hidden_sizes, 1) for _ in range(2)]  # for PyTorch's default initialisation
        layers = [[layer for layer in twin if isinstance(layer, nn.Linear)] for twin in twins]
        self.weights = nn.ParameterList(
            torch.stack([layer.weight.detach().T for layer in pair]) for pair in zip(*layers, strict=True)
        )
        self.biases = nn.ParameterList(
            torch.stack([layer.bias.detach().unsqueeze(0) for layer in pair]) for pair in zip(*layers, strict=True)
        )

    def forward(self, observation: Tensor, action: Tensor, frozen: bool = False) -> Tensor:
        """Evaluate both critics.

        Args:
            observation: Encoded observations, ``[B, D]``.
            action: Actions in [−1, 1], ``[B, A]``.
            frozen: Whether gradients flow to the action only and not to the networks.

        Returns:
            Q-values of both critics, ``[2, B]``.
        """
        parameters = [parameter for layer in zip(self.weights, self.biases, strict=True) for parameter in layer]
        if frozen:
            parameters = [parameter.detach() for parameter in parameters]
        return _Twins.apply(self.layer_norm, observation, action, *parameters)


class _Twins(torch.autograd.Function):
    """The layers of :class:`TwinCritic` as one node of the autograd graph, which is faster for small layers."""

    @staticmethod
    def forward(ctx: Any, layer_norm: bool, observation: Tensor, action: Tensor, *parameters: Tensor) -> Tensor:
        """Map ``[B, D]`` and ``[B, A]`` to ``[2, B]``; each layer has parameters ``[2, I, O]`` and ``[2, 1, O]``."""
        hidden, normalized = [torch.cat([observation, action], dim=-1).expand(2, -1, -1)], []
        for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            result = torch.baddbmm(bias, hidden[-1], weight)
            if layer_norm:
                before, (result, mean, inverse) = result, torch.native_layer_norm(result, [result.shape[-1]], *NORM)
                normalized += [before, mean, inverse]
            hidden.append(result.relu_())
        ctx.layer_norm, ctx.layers, ctx.actions = layer_norm, len(hidden), action.shape[-1]
        ctx.save_for_backward(*hidden, *parameters[::2], *normalized)
        # A product with one column takes four times as long as the equivalent product with one row.
        return torch.baddbmm(parameters[-1], parameters[-2].mT, hidden[-1].mT).squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        """Compute only the required gradients: those of the weights and biases, or of the action."""
        layers, saved = ctx.layers, ctx.saved_tensors
        hidden, weights, normalized = saved[:layers], saved[layers : 2 * layers], saved[2 * layers :]
        learning = ctx.needs_input_grad[3]
        gradients: list[Tensor | None] = [None] * (2 * layers)
        if learning:
            gradients[-2:] = torch.bmm(grad_output.unsqueeze(1), hidden[-1]).mT, grad_output.sum(1).view(2, 1, 1)
        gradient = grad_output.unsqueeze(-1) * weights[-1].mT
        for layer in reversed(range(layers - 1)):
            torch.ops.aten.threshold_backward.grad_input(gradient, hidden[layer + 1], 0, grad_input=gradient)
            if ctx.layer_norm:
                before, mean, inverse = normalized[3 * layer : 3 * layer + 3]
                shape, wanted = [before.shape[-1]], [True, False, False]
                backward = torch.ops.aten.native_layer_norm_backward
                gradient = backward(gradient.to(before.dtype), before, shape, mean, inverse, None, None, wanted)[0]
            if learning:
                gradients[2 * layer] = torch.bmm(hidden[layer].mT, gradient)
                gradients[2 * layer + 1] = gradient.sum(dim=1, keepdim=True)
            if layer > 0:
                gradient = torch.bmm(gradient, weights[layer].mT)
        action = None
        if ctx.needs_input_grad[2]:
            action = torch.bmm(weights[0][:, -ctx.actions :], gradient.mT).sum(dim=0).T
        return None, None, action, *gradients
