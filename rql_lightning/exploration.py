"""Noise for exploration."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class CorrelatedNoise:
    """Standard normal noise that stays correlated over time: white noise in its place keeps a car in the valley.

    ε_t = ρ ε_{t−1} + √(1 − ρ²) ξ_t with ρ = exp(−1 / steps) and ξ_t ~ N(0, 1): an Ornstein-Uhlenbeck process started in
    its stationary distribution, so that at any one time the action is distributed exactly as the policy would have it;
    only in time its choices hang together. Why that helps off-policy learning: Eberhard, Hollenstein, Pinneri and
    Martius, *Pink Noise Is All You Need* (ICLR 2023).

    Args:
        steps: Correlation time in environment steps; 0 is white noise.
    """

    def __init__(self, steps: float) -> None:
        self.rho = math.exp(-1.0 / steps) if steps > 0 else 0.0
        self.state: Tensor | None = None

    def sample(self, shape: torch.Size, device: torch.device) -> Tensor:
        """The next noise of every environment.

        Args:
            shape: ``[N, A]``, the same at every call; another one starts anew.
            device: Of the result.
        """
        fresh = torch.randn(shape, device=device)
        if self.rho == 0.0:
            return fresh
        if self.state is None or self.state.shape != shape:
            self.state = fresh
        else:
            self.state = self.rho * self.state.to(device) + math.sqrt(1.0 - self.rho**2) * fresh
        return self.state
