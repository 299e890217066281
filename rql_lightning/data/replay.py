"""The DataModule: environments, collector, replay buffer, and the budget in frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytorch_lightning as pl
import torch
from gymnasium.vector import VectorEnv
from pytorch_lightning.utilities import rank_zero_warn

from rql_lightning.checkpoints import read_data, write_atomically
from rql_lightning.envs.customization import RewardName
from rql_lightning.envs.registration import make_vector_env, no_wish
from rql_lightning.errors import CheckpointError, ConfigurationError, require

if TYPE_CHECKING:
    from tensordict import TensorDictBase

    from rql_lightning.algorithms import Algorithm

EVALUATION_SEEDS = 1_000_000
"""Seeds from here on are for evaluation; those of training environments stay below."""


RANK = "rank-of-each"
"""Stands for the rank in the name of the replay file that a checkpoint refers to."""


def _of_rank(name: str, rank: int) -> str:
    return name.replace(RANK, f"rank{rank}")


class ReplayDataModule(pl.LightningDataModule):
    """Collects frames, keeps them, and hands out the K minibatches that follow each turn of the collector.

    Args:
        env: Gymnasium id, such as rql_lightning/CartPole-v0; module:id imports the module first.
        reward: The reward to learn from: 'basic', 'add_on' or 'total' (omega times basic, plus add-on).
        omega: Weight of the basic reward in the total reward.
        add_on_reward: Import path of a function (observation, action, next_observation, info) -> float, the wish for an
            environment that brings none of its own.
        env_kwargs: Further arguments of the environment.
        reference: Also run the last evaluation on the reference environments of a task that has a compiled form (such
            as highway-env itself), on the same seeds.
        num_envs: Environments stepped together (on each rank).
        total_frames: The budget in environment frames, over all ranks.
        frames_per_batch: Frames of one turn of the collector, over all environments of a rank.
        updates_per_batch: Updates that follow a turn of the collector.
        batch_size: Transitions in the minibatch of one update.
        replay_size: Transitions that the replay buffer holds; it forgets the oldest.
        warm_up_frames: Frames collected before the first update, over all ranks.
    """

    def __init__(
        self,
        env: str = "rql_lightning/CartPole-v0",
        reward: RewardName = "add_on",
        omega: float = 1.0,
        add_on_reward: str | None = None,
        env_kwargs: dict[str, Any] | None = None,
        reference: bool = False,
        num_envs: int = 64,
        total_frames: int = 100_000,
        frames_per_batch: int = 256,
        updates_per_batch: int = 64,
        batch_size: int = 64,
        replay_size: int = 100_000,
        warm_up_frames: int = 1024,
    ) -> None:
        super().__init__()
        counts = {"num_envs": num_envs, "total_frames": total_frames, "frames_per_batch": frames_per_batch}
        counts |= {"updates_per_batch": updates_per_batch, "batch_size": batch_size, "replay_size": replay_size}
        for name, value in counts.items():
            require(isinstance(value, int) and value >= 1, f"data.{name}", value, "an integer >= 1")
        budget = f"an integer >= 0 and below data.total_frames = {total_frames}"
        require(0 <= warm_up_frames < total_frames, "data.warm_up_frames", warm_up_frames, budget)
        require(batch_size <= replay_size, "data.batch_size", batch_size, f"at most data.replay_size = {replay_size}")
        require(
            frames_per_batch % num_envs == 0,
            "data.frames_per_batch",
            frames_per_batch,
            f"a multiple of data.num_envs = {num_envs}",
        )
        require(bool(np.isfinite(omega)), "data.omega", omega, "a finite number")
        self.env, self.reward, self.omega, self.add_on_reward = env, reward, omega, add_on_reward
        self.env_kwargs, self.reference = dict(env_kwargs or {}), reference
        self.num_envs, self.total_frames, self.frames_per_batch = num_envs, total_frames, frames_per_batch
        self.updates_per_batch, self.batch_size = updates_per_batch, batch_size
        self.replay_size, self.warm_up_frames = replay_size, warm_up_frames
        self.frames = 0
        self.replay_file: str | None = None
        self._collection: _Collection | None = None
        self._restored: dict[str, Any] | None = None

    @property
    def algorithm(self) -> Algorithm:
        """The LightningModule of the running trainer."""
        return self.trainer.lightning_module  # type: ignore[union-attr,return-value]

    def make_env(self, num_envs: int, reference: bool = False) -> VectorEnv:
        """A vector environment of the task, with this module's reward; of reference environments if asked for."""
        task = (self.env, num_envs, self.reward, self.omega, self.add_on_reward, self.env_kwargs)
        return make_vector_env(*task, reference=reference)

    def setup(self, stage: str) -> None:
        """Learn the environment's spaces, so that an unknown id fails before anything is allocated."""
        if self.reference:
            self.make_env(1, reference=True).close()
        env = self.make_env(1)
        self.observation_space: gym.Space[Any] = env.single_observation_space
        self.action_space: gym.Space[Any] = env.single_action_space
        self.customization = env.customization
        env.close()
        has_wish = self.customization.add_on_reward is not no_wish
        expected = f"the import path of a function: without a wish {self.env} has no reward {self.reward!r}"
        require(has_wish or self.reward == "basic", "data.add_on_reward", self.add_on_reward, expected)
        self.frames = 0

    def example_observations(self) -> np.ndarray:
        """Observations that the environment really gives, ``[2, *observation_shape]``."""
        env = self.make_env(2)
        try:
            return env.reset(seed=0)[0]
        finally:
            env.close()

    @property
    def frames_per_turn(self) -> int:
        """Frames of one turn, over all ranks."""
        world_size = self.trainer.world_size if self.trainer is not None else 1
        return self.frames_per_batch * world_size

    def train_dataloader(self) -> _TrainingBatches:
        """One batch ``[K, B]`` a turn of the collector; its length is what is left of the budget."""
        if self.frames >= self.total_frames:
            raise ConfigurationError(
                f"data.total_frames: found {self.total_frames}, which this run has already spent ({self.frames} "
                "frames); expected more, to go on"
            )
        if self._collection is not None:
            self._collection.close()
        self._collection = _Collection(self, self._restored)
        self._restored = None
        return _TrainingBatches(self, self._collection)

    def val_dataloader(self) -> range:
        """One empty batch, for ``validate``: the evaluation callback runs the episodes. None during ``fit``."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        return range(0 if fitting else 1)

    def test_dataloader(self) -> range:
        """See :meth:`val_dataloader`."""
        return range(1)

    predict_dataloader = test_dataloader

    def teardown(self, stage: str) -> None:
        """Close the environments."""
        if self._collection is not None:
            self._collection.close()
            self._collection = None

    # -- exact resume ------------------------------------------------------------------------------------------------

    def save_replay(self, folder: Path, rank: int) -> str:
        """Write this rank's replay buffer, environments and random states beside a checkpoint.

        Returns:
            The file's name with ``RANK`` in place of the rank, for the checkpoint to refer to.
        """
        name = f"replay-{self.frames}-{RANK}.pt"
        if self._collection is not None:
            write_atomically(self._collection.state(), folder / _of_rank(name, rank))
        return name

    def forget_replays(self, folder: Path, rank: int) -> None:
        """Remove this rank's files beside a checkpoint that refers to the newest of them."""
        current, self.replay_file = _of_rank(str(self.replay_file), rank), None
        for path in folder.glob(f"replay-*-rank{rank}.pt"):
            if path.name != current:
                path.unlink()

    def state_dict(self) -> dict[str, Any]:
        """The checkpoint's share of the state; the bulk is in the file that :meth:`save_replay` wrote."""
        world_size = self.trainer.world_size if self.trainer is not None else 1
        sizes = {"num_envs": self.num_envs, "replay_size": self.replay_size}
        return {"frames": self.frames, "replay_file": self.replay_file, "world_size": world_size, **sizes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint (``fit --ckpt_path``); the replay buffer is read only if training goes on."""
        self.frames = state_dict["frames"]
        trainer = self.trainer
        if trainer is None or trainer.state.fn != "fit":
            return
        if state_dict["world_size"] != trainer.world_size:
            raise CheckpointError(
                f"checkpoint {trainer.ckpt_path}: found a run of {state_dict['world_size']} rank(s), expected "
                f"{trainer.world_size}: each goes on with its own replay buffer; set trainer.devices as it was then"
            )
        for name in ("num_envs", "replay_size"):
            expected = f"{state_dict[name]}, as in checkpoint {trainer.ckpt_path}"
            require(getattr(self, name) == state_dict[name], f"data.{name}", getattr(self, name), expected)
        if state_dict["replay_file"] is None:
            rank_zero_warn("the checkpoint has no replay buffer beside it: going on with an empty one")
            return
        name = Path(_of_rank(state_dict["replay_file"], trainer.global_rank)).name
        path = Path(str(trainer.ckpt_path)).parent / name
        if not path.is_file():
            raise CheckpointError(
                f"checkpoint {trainer.ckpt_path}: expected its replay buffer {path}, found no such file"
            )
        self._restored = read_data(path)
        if (
            not isinstance(self._restored, dict)
            or not {"replay", "env", "random_state", "noise"} <= self._restored.keys()
        ):
            raise CheckpointError(f"{path}: found a file that is no replay buffer of this project")


class _Collection:
    """The running parts: environments, collector and replay buffer of one ``fit``."""

    def __init__(self, data: ReplayDataModule, restored: dict[str, Any] | None) -> None:
        from rql_lightning.data.collection import Resumed, make_collector, make_replay

        trainer, algorithm = data.trainer, data.algorithm
        rank = 0 if trainer is None else trainer.global_rank
        self.algorithm = algorithm
        self.env = data.make_env(data.num_envs)
        self.capacity = data.replay_size
        self.replay = make_replay(self.capacity, data.updates_per_batch * data.batch_size)
        self._random_state: dict[str, Any] | None = None
        env: VectorEnv = self.env
        seed: int | None = None
        if restored is None:
            # Every rank explores and samples in its own way, from the one seed of the run.
            run_seed = torch.initial_seed() % 2**31
            seed = (run_seed * 10_007 + rank * data.num_envs) % (EVALUATION_SEEDS - data.num_envs)
            torch.manual_seed(run_seed + rank)
        else:
            self.replay.load_state_dict(restored["replay"])
            self._random_state = {**restored["random_state"], "noise": restored["noise"]}
            if restored["env"] is not None:
                env = Resumed(self.env, _convert(restored["env"], torch.Tensor, torch.Tensor.numpy))
            else:
                rank_zero_warn(f"{data.env} cannot store its state: running episodes start anew")
        frames = data.frames_per_batch
        self.collector = make_collector(env, algorithm.explore, algorithm.explored, algorithm.device, frames, seed)
        self._turns = iter(self.collector)

    def turn(self) -> None:
        """One turn of the collector into the replay buffer."""
        from rql_lightning.data.collection import transitions

        if self._random_state is not None:  # last, when nothing else can draw from it any more
            torch.set_rng_state(self._random_state["cpu"])
            if "cuda" in self._random_state:
                torch.cuda.set_rng_state(self._random_state["cuda"], self.algorithm.device)
            self.algorithm.noise_state = self._random_state["noise"]
            self._random_state = None
        frames = self.algorithm.annotate(transitions(next(self._turns), self.algorithm.explored)).reshape(-1)
        try:
            self.replay.extend(frames)
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            expected = f"what memory can hold of transitions of {frames.bytes() // len(frames)} bytes"
            raise ConfigurationError(f"data.replay_size: found {self.capacity}, expected {expected}") from error

    def sample(self, updates: int) -> TensorDictBase:
        """K minibatches in one call, ``[K, B]``."""
        return self.replay.sample().exclude("index").reshape(updates, -1)

    def state(self) -> dict[str, Any]:
        """Tensors and plain data only, so that it loads with ``weights_only=True``."""
        try:
            env = _convert(self.env.get_state(), np.ndarray, lambda array: torch.from_numpy(array.copy()))
        except NotImplementedError:
            env = None
        replay = self.replay.state_dict()
        # What the buffer does not fill yet is uninitialised memory: no business of a file's.
        _convert(replay["_storage"]["_storage"], torch.Tensor, lambda tensor: tensor[len(self.replay) :].zero_())
        random_state = {"cpu": torch.get_rng_state()}
        if self.algorithm.device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(self.algorithm.device)
        return {"replay": replay, "env": env, "random_state": random_state, "noise": self.algorithm.noise_state}

    def close(self) -> None:
        """Close the environments."""
        self.collector.shutdown()


class _TrainingBatches:
    """What Lightning iterates over. It has a length, without which Lightning would collect one turn ahead."""

    def __init__(self, data: ReplayDataModule, collection: _Collection) -> None:
        self.data, self.collection = data, collection

        # Turns that only fill an empty buffer; the turn that reaches warm_up_frames is the first to be learnt from.
        turns = -(-data.warm_up_frames // data.frames_per_turn) - 1
        self.warm_up_turns = max(0, turns) if len(collection.replay) == 0 else 0

    def __len__(self) -> int:
        turns = -(-(self.data.total_frames - self.data.frames) // self.data.frames_per_turn)
        return max(0, turns - self.warm_up_turns)

    def __iter__(self) -> Iterator[TensorDictBase]:
        while self.data.frames < self.data.total_frames:
            self._turn()
            if self.warm_up_turns > 0:
                self.warm_up_turns -= 1
            else:
                yield self.collection.sample(self.data.updates_per_batch)

    def _turn(self) -> None:
        self.collection.turn()
        self.data.frames += self.data.frames_per_turn
        if self.data.frames >= self.data.total_frames and self.data.trainer is not None:
            self.data.trainer.should_stop = True  # after this batch the budget is spent, whatever max_epochs says


def _convert(state: Any, kind: type, convert: Callable[[Any], Any]) -> Any:
    """Nested dictionaries and lists, with every leaf of this kind converted."""
    if isinstance(state, dict):
        return {key: _convert(value, kind, convert) for key, value in state.items()}
    if isinstance(state, list):
        return [_convert(value, kind, convert) for value in state]
    return convert(state) if isinstance(state, kind) else state
