"""Exploration noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class CorrelatedNoise:
    """Standard normal noise that is correlated over time.

    The noise is ε_t = ρ ε_{t−1} + √(1 − ρ²) ξ_t with ρ = exp(−1 / steps) and ξ_t ~ N(0, 1), an Ornstein-Uhlenbeck
    process that starts in its stationary distribution. At each time step the action therefore has exactly the policy's
    distribution, and only actions at different steps are correlated. Correlated noise is useful where white noise
    explores too little, as in MountainCar (Eberhard et al., *Pink Noise Is All You Need*, ICLR 2023).

    Args:
        steps: Correlation time in environment steps; 0 for white noise.
    """

    def __init__(self, steps: float) -> None:
        self.rho = math.exp(-1.0 / steps) if steps > 0 else 0.0
        self.state: Tensor | None = None

    def sample(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Return the next noise of every environment, ``[N, A]``.

        Args:
            shape: Shape ``[N, A]`` of the noise; the process restarts if it changes.
            device: Device of the result.
        """
        fresh = torch.randn(shape, device=device)
        if self.rho == 0.0:
            return fresh
        if self.state is None or self.state.shape != shape:
            self.state = fresh
        else:
            self.state = self.rho * self.state.to(device) + math.sqrt(1.0 - self.rho**2) * fresh
        return self.state
