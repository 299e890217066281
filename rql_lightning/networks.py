"""The networks that algorithms train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rql_lightning.errors import require

NORM = (None, None, 1e-5)
"""Scale, shift and epsilon of PyTorch's layer norm."""
RELU_GRADIENT = torch.ops.aten.threshold_backward.grad_input
NORM_GRADIENT = torch.ops.aten.native_layer_norm_backward


class Perceptron(nn.Sequential):
    """Linear layers with ReLUs in between, which also have a backward pass in closed form.

    For small networks, the calls of modules and of autograd take several times as long as the products. A training loop
    therefore calls :meth:`evaluate` and :meth:`backward` directly; called as a module, it is an ordinary one.
    """

    def evaluate(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Evaluate the layers without autograd.

        Args:
            inputs: ``[B, inputs]``.

        Returns:
            Outputs ``[B, outputs]``, and the inputs of each layer, which :meth:`backward` needs.
        """
        *inner, (weight, bias) = self.layers
        hidden = [inputs]
        for inner_weight, inner_bias in inner:
            hidden.append(F.linear(hidden[-1], inner_weight, inner_bias).relu_())
        return F.linear(hidden[-1], weight, bias), hidden

    def backward(self, hidden: list[Tensor], gradient: Tensor, into: Sequence[Tensor]) -> None:
        """Write the gradient with respect to the parameters.

        Args:
            hidden: Inputs of each layer, ``[B, …]``.
            gradient: Gradient with respect to the outputs, ``[B, outputs]``.
            into: Tensors of the shapes of :meth:`parameters`, in their order.
        """
        for index in range(len(hidden) - 1, 0, -1):
            torch.mm(gradient.T, hidden[index], out=into[2 * index])
            torch.sum(gradient, 0, out=into[2 * index + 1])
            gradient = torch.mm(gradient, self.layers[index][0])
            _through_relu(gradient, hidden[index])
        # A product with few rows takes a third of the time of one with few columns.
        into[0].copy_(torch.mm(hidden[0].T, gradient).T)
        torch.sum(gradient, 0, out=into[1])

    def prepare(self) -> bool:
        """Look the layers up anew, which are cached, and return whether the closed form is that of this network.

        It is not if somebody has exchanged or frozen layers, or has registered hooks.
        """
        self.__dict__.pop("layers", None)
        kinds = [nn.Linear, nn.ReLU] * (len(self) // 2) + [nn.Linear]
        known = [type(layer) for layer in self] == kinds and len(list(self.parameters())) == len(self) + 1
        return known and all(parameter.requires_grad for parameter in self.parameters()) and not _has_hooks(self)

    @cached_property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weight ``[out, in]`` and bias ``[out]`` of each layer; to look them up takes longer than a ReLU."""
        return [(layer.weight, layer.bias) for layer in self if isinstance(layer, nn.Linear)]


def _has_hooks(module: nn.Module) -> bool:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(each, name) for each in module.modules() for name in hooks)


def _through_relu(gradient: Tensor, activation: Tensor) -> None:
    """Set a gradient to 0 where a ReLU returned 0, in place."""
    RELU_GRADIENT(gradient, activation, 0, grad_input=gradient)


def mlp(inputs: int, hidden_sizes: Sequence[int], outputs: int) -> Perceptron:
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
    return Perceptron(*layers, nn.Linear(sizes[-1], outputs))


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
        parameters = [parameter.detach() if frozen else parameter for parameter in self.parameters()]
        return _Twins.apply(self.layer_norm, observation, action, *parameters)

    def evaluate(self, inputs: Tensor) -> tuple[Tensor, TwinTrace]:
        """Evaluate both critics without autograd.

        Args:
            inputs: Encoded observations and actions in [−1, 1], ``[B, D + A]``.

        Returns:
            Q-values of both critics, ``[2, B]``, and what :meth:`backward` and :meth:`action_gradient` need.
        """
        return _evaluate_twins(inputs, *self.layers, self.layer_norm)

    def backward(self, trace: TwinTrace, gradient: Tensor, into: Sequence[Tensor]) -> None:
        """Write the gradient with respect to the parameters.

        Args:
            trace: From :meth:`evaluate`.
            gradient: Gradient with respect to the Q-values, ``[2, B]``.
            into: Tensors of the shapes of :meth:`parameters`, in their order.
        """
        _differentiate_twins(trace, gradient, self.layers[0], into, 0)

    def action_gradient(self, trace: TwinTrace, gradient: Tensor, actions: int) -> Tensor:
        """Return the gradient with respect to the actions, ``[B, A]``, from that of the Q-values, ``[2, B]``."""
        result = _differentiate_twins(trace, gradient, self.layers[0], None, actions)
        assert result is not None
        return result

    def prepare(self) -> bool:
        """Look the layers up anew, which are cached, and return whether the closed form is that of these networks."""
        self.__dict__.pop("layers", None)
        return len({parameter.requires_grad for parameter in self.parameters()}) == 1 and not _has_hooks(self)

    @cached_property
    def layers(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases, which take longer to look up in a ``ParameterList`` than a ReLU."""
        return list(self.weights), list(self.biases)


class TwinTrace(NamedTuple):
    """What the gradient of twins needs.

    Attributes:
        hidden: Inputs of each layer, ``[2, B, …]``.
        normalized: Inputs, means and inverse scales of each layer norm.
    """

    hidden: list[Tensor]
    normalized: list[tuple[Tensor, Tensor, Tensor]]


def _evaluate_twins(
    inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], layer_norm: bool
) -> tuple[Tensor, TwinTrace]:
    """Map ``[B, I]`` to ``[2, B]``; each layer has a weight ``[2, I, O]`` and a bias ``[2, 1, O]``."""
    hidden, normalized = [inputs.expand(2, -1, -1)], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        result = torch.baddbmm(bias, hidden[-1], weight)
        if layer_norm:
            before, (result, mean, inverse) = result, torch.native_layer_norm(result, [result.shape[-1]], *NORM)
            normalized.append((before, mean, inverse))
        hidden.append(result.relu_())
    # A product with one column takes six times as long as the sums over rows.
    q = torch.linalg.vecdot(hidden[-1], weights[-1].mT.to(hidden[-1].dtype)).add_(biases[-1].squeeze(-1))
    return q, TwinTrace(hidden, normalized)


def _differentiate_twins(
    trace: TwinTrace, gradient: Tensor, weights: Sequence[Tensor], into: Sequence[Tensor] | None, actions: int
) -> Tensor | None:
    """Write the gradients of weights and biases, if wanted; return that of the last inputs, if any are wanted."""
    hidden, count = trace.hidden, len(weights)
    if into is not None:
        torch.bmm(gradient.unsqueeze(1), hidden[-1], out=into[count - 1].mT)
        torch.sum(gradient.unsqueeze(-1), 1, keepdim=True, out=into[-1])
    gradient = gradient.unsqueeze(-1) * weights[-1].mT
    for layer in reversed(range(count - 1)):
        _through_relu(gradient, hidden[layer + 1])
        if trace.normalized:
            before, mean, inverse = trace.normalized[layer]
            shape, wanted = [before.shape[-1]], [True, False, False]
            dtype, arguments = gradient.dtype, (before, shape, mean, inverse, None, None, wanted)
            gradient = NORM_GRADIENT(gradient.to(before.dtype), *arguments)[0].to(dtype)
        if into is not None:
            torch.bmm(hidden[layer].mT, gradient, out=into[layer])
            torch.sum(gradient, 1, keepdim=True, out=into[count + layer])
        if layer > 0:
            gradient = torch.bmm(gradient, weights[layer].mT)
    if actions == 0:
        return None
    return torch.bmm(weights[0][:, -actions:], gradient.mT).sum(dim=0).T


class _Twins(torch.autograd.Function):
    """The layers of :class:`TwinCritic` as one node of the autograd graph, for losses without a closed gradient."""

    @staticmethod
    def forward(ctx: Any, layer_norm: bool, observation: Tensor, action: Tensor, *parameters: Tensor) -> Tensor:
        """Map ``[B, D]`` and ``[B, A]`` to ``[2, B]``, with the weights of all layers and then their biases."""
        count = len(parameters) // 2
        inputs = torch.cat([observation, action], dim=-1)
        q, trace = _evaluate_twins(inputs, parameters[:count], parameters[count:], layer_norm)
        ctx.actions, ctx.layers = action.shape[-1], count
        ctx.save_for_backward(*parameters, *trace.hidden, *(part for parts in trace.normalized for part in parts))
        return q

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        """Compute only the required gradients: those of the weights and biases, or of the action."""
        saved, count = ctx.saved_tensors, ctx.layers
        dtype = saved[3 * count - 1].dtype  # bfloat16 in mixed precision, where products with a given result want one
        weights = [weight.to(dtype) for weight in saved[:count]]
        hidden = [inputs.to(dtype) for inputs in saved[2 * count : 3 * count]]
        normalized = list(zip(*(saved[3 * count + part :: 3] for part in range(3)), strict=True))
        learning = ctx.needs_input_grad[3]
        into = [torch.empty_like(each, dtype=dtype) for each in saved[: 2 * count]] if learning else None
        wanted = ctx.actions if ctx.needs_input_grad[2] else 0
        action = _differentiate_twins(TwinTrace(hidden, normalized), grad_output.to(dtype), weights, into, wanted)
        nothing: list[Any] = [None] * (2 * count)
        return None, None, action, *(into or nothing)
