"""Videos of prior and policy side by side in the same episodes, as files and in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from rql_lightning.callbacks.plans import plan_drawing
from rql_lightning.callbacks.run_folder import report_failure, run_folder
from rql_lightning.callbacks.signals import prompt_signals
from rql_lightning.data.replay import EVALUATION_SEEDS, ReplayDataModule
from rql_lightning.errors import require
from rql_lightning.policies import Decider
from rql_lightning.reporting.before_after import NAME, before_after, save_before_after
from rql_lightning.reporting.videos import (
    COLORS,
    DRAWN_COLORS,
    SideBySide,
    check_renders,
    record_frames,
    save_gif,
    save_mp4,
)

if TYPE_CHECKING:
    from rql_lightning.algorithms import Algorithm


class VideoCallback(pl.Callback):
    """Record videos of the policy and its prior in the same episodes, at the end of fit and in test.

    The plans of a planner are drawn into its video. Beside each video of two policies stands a still picture of moments
    of it.

    Args:
        episodes: Number of episodes to record, 0 for none; the environment must support render_mode rgb_array.
        seed: Seed of the first recorded episode; the seed of each further episode is one higher.
        scale: Factor by which the pictures are enlarged.
        max_steps: Largest number of steps to record per episode; the rest of a longer episode is omitted.
    """

    def __init__(
        self, episodes: int = 0, seed: int = EVALUATION_SEEDS, scale: float = 1.0, max_steps: int = 2_000
    ) -> None:
        require(isinstance(episodes, int) and episodes >= 0, "video.episodes", episodes, "an integer >= 0")
        require(0 <= seed < 2**32, "video.seed", seed, "an integer in [0, 2**32)")
        require(0 < scale <= 4, "video.scale", scale, "a number in (0, 4]")
        require(isinstance(max_steps, int) and max_steps >= 1, "video.max_steps", max_steps, "an integer >= 1")
        self.episodes, self.seed, self.scale, self.max_steps = episodes, seed, scale, max_steps

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the environment renders before anything is trained."""
        data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
        dry = trainer.fast_dev_run  # type: ignore[attr-defined]
        if self.episodes > 0 and stage in ("fit", "test") and not dry:
            check_renders(data.env, data.env_kwargs)
        run_folder(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Record the result, which :class:`FrameCheckpoint` has already saved."""
        self._record_all(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Record the tested policy."""
        self._record_all(trainer, pl_module)

    def _record_all(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:
        """Record all episodes; an error is reported and does not end the run."""
        if not (trainer.is_global_zero and pl_module.acts) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        with prompt_signals():
            for seed in range(self.seed, self.seed + self.episodes):
                try:
                    self._record(trainer, pl_module, seed)
                except Exception as error:
                    report_failure(trainer, f"video of episode {seed}", error)

    def _record(self, trainer: pl.Trainer, pl_module: Algorithm, seed: int) -> None:
        data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
        prior = pl_module.reported_prior
        deciders: dict[str, Decider] = {} if prior is None or not prior.can_act else {"prior": prior}
        deciders["policy"] = pl_module.decider
        every_step = any(decider.needs_state for decider in deciders.values())
        drawings = {name: plan_drawing(decider, data, self.scale) for name, decider in deciders.items()}
        recordings = {
            name: record_frames(
                decider, data.env, seed, self.max_steps, data.env_kwargs, every_step, draw=drawings[name]
            )
            for name, decider in deciders.items()
        }
        scales = {name: self.scale if drawings[name] is None else 1.0 for name in deciders}  # drawings are enlarged
        pictures = SideBySide({name: frames for name, (frames, _) in recordings.items()}, scale=scales)
        path = run_folder(trainer) / "videos" / f"episode-{seed}.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        milliseconds = round(1000 / next(iter(recordings.values()))[1])
        save_gif(pictures, path, milliseconds, DRAWN_COLORS if any(drawings.values()) else COLORS)
        save_mp4(pictures, path.with_suffix(".mp4"), milliseconds)
        if len(recordings) > 1:
            still = before_after({name: frames for name, (frames, _) in recordings.items()})
            save_before_after(still, path.with_name(f"{NAME}-{seed}.png"))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                _log_gif(logger, f"video/episode-{seed}", path, pictures[0], pl_module.frames)


def _log_gif(logger: TensorBoardLogger, tag: str, path: Path, picture: Image.Image, step: int) -> None:
    """Log an animated GIF as an image, which TensorBoard plays (``add_video`` does the same but requires moviepy)."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    image = Summary.Image(
        height=picture.height, width=picture.width, colorspace=3, encoded_image_string=path.read_bytes()
    )
    writer = logger.experiment._get_file_writer()
    writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
