"""Policies beside each other, on the same seed, as moving pictures: in a file and in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from rql_lightning.data.replay import EVALUATION_SEEDS, ReplayDataModule
from rql_lightning.errors import require
from rql_lightning.policies import Policy
from rql_lightning.reporting.videos import record_frames, save_gif, side_by_side

if TYPE_CHECKING:
    from rql_lightning.algorithms import Algorithm


class VideoCallback(pl.Callback):
    """Record the policy, and the prior beside it, in the same episodes, at the end of fit and in test.

    Args:
        episodes: How many; 0 for none. The environment must render rgb_array.
        seed: Of the first episode, the next one's is one higher.
        scale: Of the pictures.
    """

    def __init__(self, episodes: int = 0, seed: int = EVALUATION_SEEDS, scale: float = 1.0) -> None:
        require(isinstance(episodes, int) and episodes >= 0, "video.episodes", episodes, "an integer >= 0")
        require(0 <= seed < 2**32, "video.seed", seed, "an integer in [0, 2**32)")
        require(0 < scale <= 4, "video.scale", scale, "a number in (0, 4]")
        self.episodes, self.seed, self.scale = episodes, seed, scale

    def on_train_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """See the class."""
        self._record_all(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """See the class."""
        self._record_all(trainer, pl_module)

    def _record_all(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            for seed in range(self.seed, self.seed + self.episodes):
                self._record(trainer, pl_module, seed)

    def _record(self, trainer: pl.Trainer, pl_module: Algorithm, seed: int) -> None:
        data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
        policy = pl_module.policy
        actors: dict[str, Policy] = {"policy": policy}
        if policy.prior is not None and policy.prior.can_act:
            actors = {"prior": policy.prior, **actors}
        recordings = {
            name: record_frames(actor, data.env, seed, None, data.env_kwargs) for name, actor in actors.items()
        }
        pictures = side_by_side({name: frames for name, (frames, _) in recordings.items()}, scale=self.scale)
        path = Path(trainer.log_dir or trainer.default_root_dir) / "videos" / f"episode-{seed}.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_gif(pictures, path, milliseconds=round(1000 / next(iter(recordings.values()))[1]))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                _log_gif(logger, f"video/episode-{seed}", path, pictures[0], pl_module.frames)


def _log_gif(logger: TensorBoardLogger, tag: str, path: Path, picture: Image.Image, step: int) -> None:
    """TensorBoard plays an animated GIF where it expects an image (its own ``add_video`` does this, with moviepy)."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    image = Summary.Image(
        height=picture.height, width=picture.width, colorspace=3, encoded_image_string=path.read_bytes()
    )
    writer = logger.experiment._get_file_writer()
    writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
