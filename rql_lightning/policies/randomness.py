"""Random numbers that do not depend on PyTorch's global generator, and do not affect it."""

from __future__ import annotations

from typing import Any

import torch


class OwnRandom:
    """Context in which PyTorch's CPU generator draws from a sequence of its own, which goes on in the next context.

    Args:
        seed: Seed of the sequence.
    """

    def __init__(self, seed: int) -> None:
        self._own = torch.Generator().manual_seed(seed).get_state()

    def __enter__(self) -> None:
        self._outside = torch.get_rng_state()
        torch.set_rng_state(self._own)

    def __exit__(self, *error: Any) -> None:
        self._own = torch.get_rng_state()
        torch.set_rng_state(self._outside)
