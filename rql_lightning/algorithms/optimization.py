"""Optimizers on flat parameter vectors: fused, clipped and averaged over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from rql_lightning.algorithms.hyperparameters import Schedule
from rql_lightning.errors import ConfigurationError

Average = Callable[[Tensor], Tensor]
"""Averages a gradient over the ranks."""


class VectorOptimizer(torch.optim.Adam):
    """Adam on groups of parameters; the parameters of each group are views of one flat vector.

    For small networks, a step on one vector takes a tenth of the time of steps on separate parameters, and ranks
    exchange a single message. Add a group or an optimizer for each further network, such as a discriminator.

    Args:
        groups: Parameters of each group.
        learning_rate: Initial learning rate.
        schedule: ``constant``, or ``linear`` to decrease the learning rate to 0 at the end of the budget.
        max_grad_norm: Norm to which the gradient of each group is clipped; ``None`` for no clipping.
        weight_decay: Decoupled weight decay, relative to the learning rate (Loshchilov & Hutter 2019).

    Attributes:
        members: Parameters of each group.
    """

    def __init__(
        self,
        groups: Iterable[Iterable[Tensor]],
        learning_rate: float,
        schedule: Schedule = "constant",
        max_grad_norm: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        self.members = [list(group) for group in groups]
        self.vectors = [share_memory(group) for group in self.members]
        self.learning_rate, self.schedule, self.max_grad_norm = learning_rate, schedule, max_grad_norm
        self.weight_decay = weight_decay
        self._written, self._parts, self._views = torch.empty(0), list[Tensor](), list[list[Tensor]]()
        self._plans: dict[tuple[int, ...], list[int]] = {}
        super().__init__(self.vectors, lr=learning_rate, fused=True)

    def step(self, closure: Any = None) -> Any:
        """Make a step of Adam on the vectors that have a gradient, after shrinking them by the weight decay."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        self.take_step()
        return loss

    @torch.no_grad()
    def take_step(self) -> None:
        """Make a step without the hooks and the profiler's label of :meth:`step`, which take as long as the step.

        ``torch.optim.Adam`` has an argument for decoupled weight decay only from PyTorch 2.7.
        """
        group = self.param_groups[0]
        vectors = [vector for vector in self.vectors if vector.grad is not None]
        if self.weight_decay > 0:
            for vector in vectors:
                vector.mul_(1.0 - group["lr"] * self.weight_decay)
        states = [self.state[vector] for vector in vectors]
        if not all(states) or len(self.param_groups) > 1 or group["amsgrad"]:  # the first step allocates states
            super().step()
            return
        torch._foreach_add_([state["step"] for state in states], 1)
        torch._fused_adam_(
            vectors,
            [vector.grad for vector in vectors if vector.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=group["maximize"],
        )

    def follow_schedule(self, remaining: float) -> None:
        """Set the learning rate from the remaining fraction of the budget, in [0, 1]."""
        for group in self.param_groups:
            group["lr"] = self.learning_rate * (max(remaining, 0.0) if self.schedule == "linear" else 1.0)

    def differentiate(self, loss: Tensor, parameters: Sequence[Tensor], average: Average | None = None) -> None:
        """Compute the gradient of a loss, averaged and clipped, and assign it to the vectors for :meth:`step`.

        The gradient is computed by ``torch.autograd.grad``, which does not trigger the hooks of
        DistributedDataParallel: they allow one backward pass per training step, but an algorithm makes K. The vectors
        of groups that are not in ``parameters`` get no gradient, so they do not change and Adam does not count the step
        for them. (With zero gradients instead, the first steps afterwards would be several times the learning rate.)

        Args:
            loss: Loss to differentiate, scalar.
            parameters: Parameters to differentiate with respect to: all parameters of one or more groups, in the order
                of the groups.
            average: Function that averages a gradient over the ranks; ``None`` for one rank.

        Raises:
            ConfigurationError: If the parameters are not complete groups of this optimizer in their order.
        """
        sizes = self._sizes(parameters)
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        if average is not None:
            gradient = average(gradient)
        for vector, part in zip(self.vectors, gradient.split(sizes), strict=True):
            self._assign(vector, part if len(part) else None)

    def gradients(self, group: int) -> list[Tensor]:
        """Return tensors into which to write the gradient of a group, in the shapes of its parameters."""
        if not self._views:
            self._written = torch.cat([torch.zeros_like(vector, requires_grad=False) for vector in self.vectors])
            self._parts = list(self._written.split([len(vector) for vector in self.vectors]))
            for part, members in zip(self._parts, self.members, strict=True):
                pieces = part.split([each.numel() for each in members])
                self._views.append([piece.view_as(each) for piece, each in zip(pieces, members, strict=True)])
        return self._views[group]

    def adopt(self, groups: int, average: Average | None = None) -> None:
        """Assign the gradients that were written (:meth:`gradients`), averaged and clipped, to the vectors.

        Args:
            groups: Number of groups, from the first on, whose gradient was written; the others get none.
            average: Function that averages a gradient over the ranks; ``None`` for one rank.
        """
        if average is not None:
            written = self._written[: sum(map(len, self._parts[:groups]))]
            written.copy_(average(written))
        for index, (vector, part) in enumerate(zip(self.vectors, self._parts, strict=True)):
            self._assign(vector, part if index < groups else None)

    def _assign(self, vector: Tensor, gradient: Tensor | None) -> None:
        """Clip the gradient of a vector, and assign it."""
        if gradient is not None and self.max_grad_norm is not None:
            gradient.unsqueeze(0).renorm_(p=2, dim=0, maxnorm=self.max_grad_norm)
        if vector.grad is not gradient:  # to assign what is there takes as long as a small operation
            vector.grad = gradient

    def _sizes(self, parameters: Sequence[Tensor]) -> list[int]:
        """Return the number of elements of each vector to differentiate: all of them or none."""
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
    """Move parameters into one flat vector, of which they become views.

    An optimizer on the vector steps one tensor instead of one per parameter. Loading and saving the parameters works as
    before, but moving their module to another device or dtype afterwards separates them from the vector.

    Args:
        parameters: Parameters on one device and of one dtype.

    Returns:
        The vector, ``[total number of elements]``, a leaf that requires a gradient.
    """
    vector = parameters_to_vector(parameters).clone()
    pieces = vector.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.data = piece.view_as(parameter)
    return vector.requires_grad_()
