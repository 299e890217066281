"""Gradient steps on vectors of parameters: fused, clipped, averaged over ranks, each with its own learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from rql_lightning.algorithms.hyperparameters import Schedule
from rql_lightning.errors import ConfigurationError

Average = Callable[[Tensor], Tensor]
"""Averages a gradient over the ranks."""


class VectorOptimizer(torch.optim.Adam):
    """Adam on groups of parameters, each of which is one vector that its parameters are views of.

    A step of one vector costs a tenth of steps of each parameter where networks are small, and ranks exchange one
    message. A further network, such as a discriminator, is a further group or a further optimizer.

    Args:
        groups: The parameters of each group.
        learning_rate: At the start.
        schedule: ``linear`` lets the learning rate fall to 0 at the end of the budget.
        max_grad_norm: The gradient of each group is clipped to this norm; ``None`` for no clipping.

    Attributes:
        members: The parameters of each group.
    """

    def __init__(
        self,
        groups: Iterable[Iterable[Tensor]],
        learning_rate: float,
        schedule: Schedule = "constant",
        max_grad_norm: float | None = None,
    ) -> None:
        self.members = [list(group) for group in groups]
        self.vectors = [share_memory(group) for group in self.members]
        self.learning_rate, self.schedule, self.max_grad_norm = learning_rate, schedule, max_grad_norm
        self._plans: dict[tuple[int, ...], list[int]] = {}
        super().__init__(self.vectors, lr=learning_rate, fused=True)

    def follow_schedule(self, remaining: float) -> None:
        """Set the learning rate for this part of the budget, in [0, 1], that is left."""
        for group in self.param_groups:
            group["lr"] = self.learning_rate * (max(remaining, 0.0) if self.schedule == "linear" else 1.0)

    def differentiate(self, loss: Tensor, parameters: Sequence[Tensor], average: Average | None = None) -> None:
        """Give the vectors the gradient of a loss, averaged and clipped, for :meth:`step` to follow.

        ``torch.autograd.grad`` leaves DistributedDataParallel's hooks alone: they allow one backward pass per training
        step, where an algorithm makes K of them. Vectors that ``parameters`` do not reach have no gradient: they stand
        still, and Adam does not count the step for them. (After steps of gradient 0 the first others would be several
        times the learning rate.)

        Args:
            loss: Scalar.
            parameters: What to differentiate by: all parameters of one or more groups, in the groups' order.
            average: Over the ranks; ``None`` for one rank.

        Raises:
            ConfigurationError: for parameters that are not whole groups of this optimizer, in their order.
        """
        sizes = self._sizes(parameters)
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        if average is not None:
            gradient = average(gradient)
        for vector, part in zip(self.vectors, gradient.split(sizes), strict=True):
            vector.grad = part if len(part) else None
            if self.max_grad_norm is not None and len(part):
                part.unsqueeze(0).renorm_(p=2, dim=0, maxnorm=self.max_grad_norm)

    def _sizes(self, parameters: Sequence[Tensor]) -> list[int]:
        """Elements of each vector that the parameters reach: all of them or none."""
        key = tuple(map(id, parameters))
        if key not in self._plans:
            groups = [tuple(map(id, group)) for group in self.members]
            reached = [bool(group) and group[0] in key for group in groups]
            whole = sum((group for group, is_reached in zip(groups, reached, strict=True) if is_reached), ())
            if key != whole:
                held = set().union(*groups)
                foreign = [tuple(each.shape) for each in parameters if id(each) not in held]
                found = f"parameters of shapes {foreign} that it does not hold" if foreign else "a part of a group"
                raise ConfigurationError(f"optimizer: found {found}, expected all parameters of one or more groups")
            self._plans[key] = [
                len(vector) if is_reached else 0 for vector, is_reached in zip(self.vectors, reached, strict=True)
            ]
        return self._plans[key]


@torch.no_grad()
def share_memory(parameters: Sequence[Tensor]) -> Tensor:
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
