"""The base of all algorithms that are not trained."""

from __future__ import annotations

from rql_lightning.algorithms.base import Algorithm
from rql_lightning.errors import ConfigurationError


class Untrained(Algorithm):
    """Mixin for algorithms that act without training and without a checkpoint of a run."""

    needs_checkpoint = False

    def setup(self, stage: str) -> None:
        """Prepare to act in the environment of the run.

        Raises:
            ConfigurationError: If the stage is ``fit``.
        """
        if stage == "fit":
            raise ConfigurationError(
                f"model: found {type(self).__name__}, which is not trained, expected test or validate in place of fit"
            )
        super().setup(stage)

    def configure_optimizers(self) -> None:
        """None; Lightning asks for the method before :meth:`setup` can refuse."""
