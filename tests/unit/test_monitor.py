"""Speed, wall-clock and training episodes, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from rql_lightning.callbacks import TrainingMonitor, monitor


def test_rates_are_over_what_happened_since_the_last_log(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(monitor, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    logged: list[dict[str, float]] = []
    saved: list[None] = []
    ended: list[tuple[Any, Any]] = [
        (np.array([]), np.array([])),
        (np.array([3.0, 5.0]), np.array([10, 20])),
    ]
    data = SimpleNamespace(frames=1000, pop_finished_episodes=lambda: ended.pop(0))
    model: Any = SimpleNamespace(updates=40, train_seconds=7.5, log_metrics=logged.append)
    logger = SimpleNamespace(save=lambda: saved.append(None))
    trainer: Any = SimpleNamespace(datamodule=data, log_every_n_steps=10, loggers=[logger])

    callback = TrainingMonitor()
    callback.on_train_epoch_start(trainer, model)
    for batch, (frames, updates, seconds) in enumerate([(1200, 50, 102.0), (1300, 60, 103.0), (2200, 150, 112.0)]):
        data.frames, model.updates, now.seconds = frames, updates, seconds
        callback.on_train_batch_end(trainer, model, None, None, (0, 7, 10)[batch])
    first, second = logged  # batch 7 is not logged
    assert first == {"train/frames_per_second": 100.0, "train/updates_per_second": 5.0, "train/seconds": 7.5}
    assert second == {
        "train/frames_per_second": 100.0,
        "train/updates_per_second": 10.0,
        "train/seconds": 7.5,
        "train/episode_return": 4.0,
        "train/episode_length": 15.0,
    }
    assert len(saved) == 2
