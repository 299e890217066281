"""Warnings that do not apply to this project are not shown; all others are."""

from __future__ import annotations

import inspect
import warnings

from pytorch_lightning.loops import training_epoch_loop

from rql_lightning.callbacks.quiet import quieten

RESUMING = "You're resuming from a checkpoint that ended before the epoch ended and your dataloader is"


def test_lightnings_warning_about_resuming_does_not_apply():
    assert RESUMING in inspect.getsource(training_epoch_loop), "Lightning words it differently"
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quieten()
        warnings.warn(f"{RESUMING} not resumable.", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["something else"]
