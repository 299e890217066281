"""The base class of all compiled simulators: a ``gymnasium.vector.VectorEnv`` over arrays of states."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numba
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rql_lightning.envs.reference import make_highway_env, plain
from rql_lightning.envs.simulation.configuration import Model
from rql_lightning.envs.simulation.generator import (
    WORDS,
    generator_from_state,
    generator_to_state,
    seed_generator,
)
from rql_lightning.errors import EnvironmentContractError, require

Indices = Sequence[int] | np.ndarray


class CompiledVectorEnv(VectorEnv):
    """Environments whose states are rows of arrays, stepped together by compiled code.

    In ``AutoresetMode.DISABLED``: an environment that is done goes on until ``reset(options={"reset_mask": …})``; for
    SAME_STEP see :class:`~rql_lightning.envs.vector.SameStepAutoreset`. What an environment does depends on its seed
    and its actions alone, not on the number of environments or threads; it is what the reference does from that seed.

    A subclass gives the methods below; ``_allocate`` sets ``vehicles``, the state, a structured array of float64 fields
    ``[N, …]``.

    Args:
        num_envs: N.
        config: In highway-env's own keys, over the simulator's defaults.
        max_episode_steps: Truncates episodes, besides the configuration's ``duration``; ``None`` for no such limit.
        threads: Of a step.
        render_mode: ``rgb_array``, or ``None`` for an environment that is not drawn.

    Attributes:
        model: What of highway-env the simulator models.

    Raises:
        ConfigurationError: for what the simulator does not model and for numbers that make no sense, by name.
    """

    model: Model
    vehicles: np.ndarray
    returns_new_arrays = True

    def __init__(
        self,
        num_envs: int = 1,
        config: dict[str, Any] | None = None,
        max_episode_steps: int | None = None,
        threads: int = 1,
        render_mode: str | None = "rgb_array",
    ) -> None:
        num_envs = plain(num_envs)
        require(isinstance(num_envs, int) and num_envs >= 1, "num_envs", num_envs, "an integer >= 1")
        limit = numba.config.NUMBA_NUM_THREADS
        require(threads in range(1, limit + 1), "threads", threads, f"an integer from 1 to {limit} (Numba's limit)")
        accepted = max_episode_steps is None or (isinstance(max_episode_steps, int) and max_episode_steps >= 1)
        require(accepted, "max_episode_steps", max_episode_steps, "an integer >= 1 or None")
        self.num_envs, self.config, self.threads = num_envs, self.model.configure(config), threads
        self._check_config()
        self.single_observation_space, self.single_action_space = self._spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.autoreset_mode = AutoresetMode.DISABLED
        require(render_mode in (None, "rgb_array"), "render_mode", render_mode, "'rgb_array' or None")
        self.render_mode = render_mode
        pictures = 2 * self.config["policy_frequency"]  # per second, as highway-env shows them
        self.metadata = {
            "autoreset_mode": AutoresetMode.DISABLED,
            "render_modes": ["rgb_array"],
            "render_fps": pictures,
        }
        self.max_episode_steps = max_episode_steps
        self.times, self.steps = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        self.generators = np.zeros((num_envs, WORDS), dtype=np.uint64)
        self._seeded, self._everywhere = np.zeros(num_envs, dtype=bool), np.ones(num_envs, dtype=bool)
        self._observations = np.zeros(self.observation_space.shape, dtype=np.float32)
        self._reference: gym.Env[Any, Any] | None = None
        self._allocate()
        self._allocate_outcome()

    # -- implemented by simulators -----------------------------------------------------------------------------------

    def _check_config(self) -> None:
        """Refuse invalid numbers in the configuration."""
        raise NotImplementedError

    def _spaces(self) -> tuple[gym.spaces.Box, gym.Space[Any]]:
        """Observations and actions of one environment."""
        raise NotImplementedError

    def _allocate(self) -> None:
        """The vehicles, and whatever else steps need."""
        raise NotImplementedError

    def _allocate_outcome(self) -> None:
        """Arrays that a step writes besides vehicles, times and observations."""
        raise NotImplementedError

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        """Actions ``[N, …]`` as :meth:`_advance` takes them; refuses those outside the space."""
        raise NotImplementedError

    def _reset(self, mask: np.ndarray) -> None:
        """New episodes where ``mask [N]``: vehicles, times and observations."""
        raise NotImplementedError

    def _advance(self, actions: np.ndarray) -> None:
        """One policy step of all environments: vehicles, times and observations."""
        raise NotImplementedError

    def _observe(self) -> None:
        """Observations, after vehicles were changed from outside."""
        raise NotImplementedError

    def _outcome(self) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Reward and terminated ``[N]`` of the states reached, and infos of ``[N]`` arrays."""
        raise NotImplementedError

    def _load(self, index: int, env: Any) -> None:
        """Take over the vehicles of a reference environment (unwrapped)."""
        raise NotImplementedError

    def _store(self, index: int, env: Any) -> None:
        """Write the vehicles back."""
        raise NotImplementedError

    # -- Gymnasium ---------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start episodes: all of them, or those of ``options["reset_mask"]``, a ``bool [N]``.

        Args:
            seed: Seed of the first environment, where the seed of each further one is one higher, or one seed per
                environment. Without a seed, an environment's random generator continues.
            options: ``reset_mask`` only.
        """
        mask = self._mask(options)
        seeds = self._seeds(seed)
        for index in np.flatnonzero(mask):
            if seeds[index] is not None or not self._seeded[index]:
                self.generators[index] = seed_generator(seeds[index])
                self._seeded[index] = True
        self.steps[mask] = 0
        self._reset(mask)
        _, _, info = self._outcome()
        return self._observations.copy(), _with_masks(info, mask)

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One policy step of all environments.

        Raises:
            EnvironmentContractError: If actions are outside the action space, or if no episode was started.
        """
        if not self._seeded.all():
            raise EnvironmentContractError(f"{type(self).__name__}.step: found no episode, expected reset() before")
        self._advance(self._checked(np.asarray(actions)))
        self.steps += 1
        reward, terminated, info = self._outcome()
        truncated = self.times >= self.config["duration"]
        if self.max_episode_steps is not None:
            truncated |= self.steps >= self.max_episode_steps
        return self._observations.copy(), reward, terminated, truncated, _with_masks(info, self._everywhere)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture of each environment, drawn by the reference, ``[height, width, 3]``."""
        if self.render_mode is None:
            return None
        if self._reference is None:
            self._reference = make_highway_env(self.model.reference, plain(self.config), "rgb_array")
            self._reference.reset()
        pictures = []
        for index in range(self.num_envs):
            self.to_reference(index, self._reference)
            pictures.append(self._reference.render())
        return tuple(pictures)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment that draws."""
        if self._reference is not None:
            self._reference.close()
            self._reference = None

    # -- states ------------------------------------------------------------------------------------------------------

    def get_state(self, indices: Indices | None = None) -> dict[str, np.ndarray]:
        """Return a copy of the complete state, as plain arrays.

        Args:
            indices: Indices of the environments; by default all.

        Returns:
            ``vehicles`` float64 ``[n, …]`` (fields in the order of the simulator's dtype), ``times``, ``steps``,
            ``generators`` (``int64 [n, 6]``, the bits of the random generators) and ``observation``.
        """
        rows = self._rows(indices)
        return {
            "vehicles": self._plain()[rows].copy(),
            "times": self.times[rows].copy(),
            "steps": self.steps[rows].copy(),
            "generators": self.generators.view(np.int64)[rows].copy(),
            "observation": self._observations[rows].copy(),
        }

    def set_state(self, state: dict[str, np.ndarray], indices: Indices | None = None) -> None:
        """Restore the result of :meth:`get_state`, in the same or other environments.

        Args:
            state: Of n environments.
            indices: n places; by default all.

        Raises:
            EnvironmentContractError: for missing keys, wrong shapes or indices out of range.
        """
        rows = self._rows(indices)
        own = {
            "vehicles": self._plain(),
            "times": self.times,
            "steps": self.steps,
            "generators": self.generators.view(np.int64),
            "observation": self._observations,
        }
        name = type(self).__name__
        for key, array in own.items():
            if key not in state:
                raise EnvironmentContractError(f"{name}.set_state: found no {key!r}, expected what get_state returns")
            expected = (len(rows), *array.shape[1:])
            if np.shape(state[key]) != expected:
                found = f"found {key!r} of shape {np.shape(state[key])}"
                raise EnvironmentContractError(f"{name}.set_state: {found}, expected {expected}")
        for key, array in own.items():
            array[rows] = state[key]
        self._seeded[rows] = True
        self._observe()

    def simulate(
        self, state: Mapping[str, np.ndarray], actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, Any]]:
        """Step states apart from the running episodes, which this does not touch; time limits do not apply.

        Args:
            state: ``vehicles``, ``times`` and ``steps`` of n episodes, as :meth:`get_state` returns them.
            actions: One per state, ``[n, …]``.

        Returns:
            The next states with their ``observation``, terminated ``[n]``, and infos of ``[n]`` arrays.

        Raises:
            EnvironmentContractError: If actions are outside the action space.
        """
        model = copy.copy(self)
        model.closed, model.num_envs = True, len(actions)  # closed, because the copy has nothing of its own to close
        vehicles = np.array(state["vehicles"])
        model.vehicles = vehicles.view(self.vehicles.dtype).reshape(-1, *self.vehicles.shape[1:])
        model.times, steps = np.array(state["times"]), state["steps"] + 1
        model._observations = np.empty((len(actions), *self._observations.shape[1:]), self._observations.dtype)
        model._allocate_outcome()
        model._advance(model._checked(actions))
        _, terminated, info = model._outcome()
        following = {"vehicles": vehicles, "times": model.times, "steps": steps, "observation": model._observations}
        return following, terminated, info

    def load_reference(self, index: int, env: gym.Env[Any, Any]) -> None:
        """Copy the running episode of a reference environment, including its random generator.

        Args:
            index: Where to.
            env: May be wrapped; must have been reset.

        Raises:
            EnvironmentContractError: if it is of another kind or configuration.
        """
        (row,) = self._rows([index])
        self.model.check_reference(env.unwrapped, self.config)
        self._load(row, env.unwrapped)
        self.times[row] = env.unwrapped.time
        self.steps[row] = round(env.unwrapped.time * self.config["policy_frequency"])
        self.generators[row] = generator_from_state(env.unwrapped.np_random.bit_generator.state)
        self._seeded[row] = True
        self._observe()

    def to_reference(self, index: int, env: gym.Env[Any, Any]) -> None:
        """Write an environment's running episode into a reference environment, which goes on from it.

        Args:
            index: Which.
            env: May be wrapped; must have been reset, and be of the same configuration.

        Raises:
            EnvironmentContractError: if it is of another kind or configuration.
        """
        (row,) = self._rows([index])
        if not self._seeded[row]:
            raise EnvironmentContractError(f"to_reference: found no episode in environment {row}, expected reset()")
        self.model.check_reference(env.unwrapped, self.config)
        self._store(row, env.unwrapped)
        sub_steps = int(self.config["simulation_frequency"] // self.config["policy_frequency"])
        env.unwrapped.time, env.unwrapped.steps = float(self.times[row]), int(self.steps[row]) * sub_steps
        env.unwrapped.np_random.bit_generator.state = generator_to_state(self.generators[row])

    def _plain(self) -> np.ndarray:
        """The vehicles as float64 ``[N, …, fields]``: the same memory."""
        return self.vehicles.view(np.float64).reshape(*self.vehicles.shape, -1)

    def _chosen(self, serial: Callable[..., None], parallel: Callable[..., None]) -> Callable[..., None]:
        """The form of a compiled function for this number of threads: one thread needs no threading layer."""
        if self.threads == 1:
            return serial
        numba.set_num_threads(self.threads)
        return parallel

    # -- checks ------------------------------------------------------------------------------------------------------

    def _rows(self, indices: Indices | None) -> np.ndarray:
        if indices is None:
            return np.arange(self.num_envs)
        rows = np.asarray(indices)
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise EnvironmentContractError(f"indices: found {indices!r}, expected a list of integers")
        if ((rows < 0) | (rows >= self.num_envs)).any():
            raise EnvironmentContractError(f"indices: found {indices!r}, expected integers in [0, {self.num_envs})")
        return rows

    def _mask(self, options: dict[str, Any] | None) -> np.ndarray:
        mask = None if options is None else options.get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, dtype=bool)
        if np.shape(mask) != (self.num_envs,) or np.asarray(mask).dtype != np.bool_:
            expected = f"a bool array of shape ({self.num_envs},)"
            raise EnvironmentContractError(f"options['reset_mask']: found {mask!r}, expected {expected}")
        return np.asarray(mask)

    def _seeds(self, seed: int | list[int | None] | None) -> list[int | None]:
        if seed is None or isinstance(seed, int | np.integer):
            return [None if seed is None else int(seed) + index for index in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise EnvironmentContractError(f"seed: found a list of {len(seed)}, expected {self.num_envs}")
        return list(seed)


def _with_masks(info: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """Gymnasium's convention: beside each entry, as ``_entry``, which environments have it."""
    result: dict[str, Any] = {}
    masks = np.empty((len(info), len(mask)), dtype=bool)
    masks[:] = mask
    for (key, value), own in zip(info.items(), masks, strict=True):
        result[key] = _with_masks(value, mask) if isinstance(value, dict) else value
        result[f"_{key}"] = own
    return result
