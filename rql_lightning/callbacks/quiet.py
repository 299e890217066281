"""Warnings of libraries that this project provokes by design, and that tell its users nothing."""

from __future__ import annotations

import warnings

_HARMLESS = (
    ".*is_leaf.*",  # Lightning's use of PyTorch
    "Total length of .* across ranks is zero.*",  # during fit the evaluation callback validates, not Lightning's loop
    "Found .* in eval mode at the start of training.*",  # the frozen prior
    "predict returned None.*",  # trajectories go to files
    "torch.distributed.nn.functional.all_gather is deprecated.*",  # Lightning's use of PyTorch
    "The number of training batches .* is smaller than the logging interval.*",  # a batch is many updates
)


def quieten() -> None:
    """Ignore them from here on in this process; other warnings show as before."""
    for message in _HARMLESS:
        warnings.filterwarnings("ignore", message=message)
