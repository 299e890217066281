"""One optimizer on vectors of parameters: what it holds, what it refuses, and which learning rate is whose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rql_lightning.algorithms import SoftQLearning
from rql_lightning.algorithms.optimization import VectorOptimizer
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import ConfigurationError

BUDGET: dict[str, Any] = {"num_envs": 4, "total_frames": 96, "frames_per_batch": 32, "updates_per_batch": 2}
BUDGET |= {"batch_size": 8, "warm_up_frames": 0}


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Linear(3, 2), nn.Linear(2, 1)


def loss(*modules: nn.Module) -> Tensor:
    value = torch.ones(4, 3)
    for module in modules:
        value = module(value).tanh()
    return value.sum()


def test_only_the_groups_that_are_asked_for_move_and_count_a_step():
    first, second = networks()
    optimizer = VectorOptimizer([first.parameters(), second.parameters()], 0.1)
    before = [parameter.clone() for parameter in second.parameters()]
    optimizer.differentiate(loss(first, second), list(first.parameters()))
    optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(before, second.parameters(), strict=True))
    assert [len(optimizer.state[vector]) > 0 for vector in optimizer.vectors] == [True, False]
    optimizer.differentiate(loss(first, second), [*first.parameters(), *second.parameters()])
    optimizer.step()
    assert not any(torch.equal(*pair) for pair in zip(before, second.parameters(), strict=True))
    assert [float(optimizer.state[vector]["step"]) for vector in optimizer.vectors] == [2.0, 1.0]


def test_parameters_that_it_does_not_hold_are_refused():
    first, second = networks()
    optimizer = VectorOptimizer([first.parameters()], 0.1)
    with pytest.raises(ConfigurationError, match=r"found parameters of shapes \[\(1, 2\), \(1,\)\] that it does not"):
        optimizer.differentiate(loss(first, second), [*first.parameters(), *second.parameters()])
    with pytest.raises(ConfigurationError, match="a part of a group"):
        optimizer.differentiate(loss(first, second), [first.weight])
    with pytest.raises(ConfigurationError, match="a part of a group"):
        optimizer.differentiate(loss(first, second), [first.bias, first.weight])


def test_a_gradient_is_averaged_before_it_is_clipped():
    first, _ = networks()
    optimizer = VectorOptimizer([first.parameters()], 0.1, max_grad_norm=0.5)
    optimizer.differentiate(loss(first), list(first.parameters()), average=lambda gradient: 100.0 * gradient)
    assert optimizer.vectors[0].grad.norm().item() == pytest.approx(0.5)
    reference = nn.Linear(3, 2)
    reference.load_state_dict(first.state_dict())
    (100.0 * loss(reference)).backward()
    nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
    expected = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()])
    torch.testing.assert_close(optimizer.vectors[0].grad, expected)


class WithSecond(SoftQLearning):
    """Two optimizers: Lightning hands out a list of them."""

    other: Any

    def __init__(self, held: bool = True, **settings: Any) -> None:
        super().__init__(hidden_sizes=[8], learning_rate=0.5, learning_rate_schedule="linear", **settings)
        self.held, self.rates = held, []

    def build(self, *arguments: Any) -> None:
        super().build(*arguments)
        self.second = nn.Linear(4, 1)

    def configure_optimizers(self) -> Any:
        own: Any = super().configure_optimizers()
        return [own, torch.optim.SGD(self.second.parameters(), lr=0.25)] if self.held else own

    def update(self, batch: Any) -> dict[str, float]:
        metrics = super().update(batch)
        if self.held:
            _, second = self.optimizers()
            self.rates.append(second.param_groups[0]["lr"])
            second.zero_grad()
            self.second(batch["observation"]).mean().backward()
            second.step()
        return metrics


def test_a_second_optimizer_keeps_its_learning_rate_and_trains(fit):
    algorithm = WithSecond()
    trainer = fit(algorithm, ReplayDataModule(reward="basic", **BUDGET))
    assert algorithm.rates == [0.25, 0.25, 0.25]
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.5 / 3)


def test_a_parameter_that_no_optimizer_holds_is_refused_before_training(fit):
    algorithm = WithSecond(held=False)
    with pytest.raises(ConfigurationError, match=r"no optimizer holds: found \['second\.weight'\]"):
        fit(algorithm, ReplayDataModule(reward="basic", **BUDGET))
    assert algorithm.updates == 0
