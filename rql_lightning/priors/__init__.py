"""Frozen prior policies behind one protocol."""

from typing import Any

from rql_lightning.errors import CheckpointError
from rql_lightning.priors.base import Prior
from rql_lightning.priors.checkpoint import CheckpointPrior
from rql_lightning.priors.function import FunctionPrior

__all__ = ["CheckpointPrior", "FunctionPrior", "Prior", "prior_from_description"]


def prior_from_description(description: dict[str, Any]) -> Prior:
    """The prior that a customised policy's checkpoint describes, before its weights are loaded.

    Raises:
        CheckpointError: if it is a function, which only its owner can give.
    """
    if description["kind"] == "FunctionPrior":
        raise CheckpointError(
            f"found a policy that customises the function {description['log_prob']}, which a file cannot hold; "
            "expected it as load_policy(path, prior=FunctionPrior(...))"
        )
    if description["kind"] != "CheckpointPrior":
        raise ValueError(f"a prior of kind {description['kind']!r}")
    return CheckpointPrior.from_description(description)
