"""Messages of libraries that tell this project's users nothing; all others show as before."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_HARMLESS = (
    ".*is_leaf.*",  # Lightning's use of PyTorch
    "Total length of .* across ranks is zero.*",  # during fit the evaluation callback validates, not Lightning's loop
    "Found .* in eval mode at the start of training.*",  # the frozen prior
    "predict returned None.*",  # trajectories go to files
    "torch.distributed.nn.functional.all_gather is deprecated.*",  # Lightning's use of PyTorch
    "The number of training batches .* is smaller than the logging interval.*",  # a batch is many updates
    "You're resuming from a checkpoint that ended before the epoch ended.*",  # the data module resumes exactly
)


_USELESS = ("GPU available:", "TPU available:", "HPU available:", "💡 Tip:", "`Trainer.fit` stopped:")


def _is_useful(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_USELESS)


def quieten() -> None:
    """Ignore warnings that this project provokes by design, and Lightning's lists of devices and tips."""
    for message in _HARMLESS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_useful)


@contextmanager
def without_repetitions(name: str) -> Iterator[None]:
    """Let a logger say the same only once, as for a file that is read twice.

    Args:
        name: Name of the logger.
    """
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        known = record.getMessage() in said
        said.add(record.getMessage())
        return not known

    logger = logging.getLogger(name)
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)
