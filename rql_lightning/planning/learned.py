"""Learned models of the environment: an ensemble of networks."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numba import njit

from rql_lightning.compilation import entry_point
from rql_lightning.envs.customization import StepFunction
from rql_lightning.errors import EnvironmentContractError, require
from rql_lightning.planning.dynamics import Dynamics, Transition, customization_of
from rql_lightning.planning.ensemble import DynamicsNetwork, load_dynamics
from rql_lightning.planning.network import layers
from rql_lightning.planning.reward import AddOnReward
from rql_lightning.planning.tree import State
from rql_lightning.spaces import check_same

MEAN = -1


class LearnedDynamics(Dynamics):
    """An ensemble of networks as a model; it sees observations alone, so that it needs no access to the environment.

    The add-on reward is a function of observations and actions: the one given, the task's ``observed_add_on_reward``,
    or the task's own. Its ``info`` holds ``terminated`` alone.

    Args:
        path: Checkpoint of a DynamicsEnsemble.
        draw: Whether each step draws a member of the ensemble, and the termination by its probability; by default,
            steps take the mean of the members, and terminate where the mean probability exceeds termination_threshold.
        termination_threshold: Probability of the termination above which it is taken to happen, in (0, 1), if nothing
            is drawn.
        pessimism: Factor of the disagreement that is subtracted from the add-on reward, >= 0. It is the standard
            deviation between the members of a next number, in units of its changes, averaged over the numbers.
    """

    fully_observed = True

    def __init__(
        self, path: str, draw: bool = False, termination_threshold: float = 0.5, pessimism: float = 0.0
    ) -> None:
        self._adopt(load_dynamics(path), str(path), draw, termination_threshold, pessimism)

    @classmethod
    def of(
        cls, network: DynamicsNetwork, draw: bool = False, termination_threshold: float = 0.5, pessimism: float = 0.0
    ) -> LearnedDynamics:
        """Create a model of networks in memory, with the arguments of the class."""
        model = cls.__new__(cls)
        model._adopt(network, "networks in memory", draw, termination_threshold, pessimism)
        return model

    def _adopt(self, network: DynamicsNetwork, name: str, draw: bool, threshold: float, pessimism: float) -> None:
        require(0 < threshold < 1, "termination_threshold", threshold, "a number in (0, 1)")
        require(0 <= pessimism < math.inf, "pessimism", pessimism, "a finite number >= 0")
        self.network, self.name = network, name
        self.deterministic, self.threshold, self.pessimism = not draw, threshold, pessimism
        layers = [part for pair in zip(network.weights, network.biases, strict=True) for part in pair]
        flat = [np.concatenate([_array(part[member]).ravel() for part in layers]) for member in range(network.members)]
        self._weights = np.stack(flat)
        self._widths = np.array([network.size + network.actions, *network.hidden_sizes, network.size + 1], np.int64)
        scale, bounds = _array(network.change_scale), (_array(network.low), _array(network.high))
        self._settings = (scale, *bounds, network.rows or 0, MEAN if network.sorted_by is None else network.sorted_by)
        self._middle, self._half_width = _array(network.encoder.middle), _array(network.encoder.half_width)

    def attach(self, env: gym.Env[Any, Any] | VectorEnv, add_on_reward: StepFunction | None = None) -> None:
        """Adopt the add-on reward, and check that the networks are of this environment's spaces.

        Raises:
            SpaceMismatchError: If the networks were trained for other observations or actions.
            EnvironmentContractError: If there is no add-on reward, or it needs the ``info`` of an environment.
        """
        spaces = (env.observation_space, env.action_space)
        if isinstance(env, VectorEnv):
            spaces = (env.single_observation_space, env.single_action_space)
        check_same(f"dynamics {self.name}, observation space", self.network.observation_space, spaces[0], False)
        check_same(f"dynamics {self.name}, action space", self.network.action_space, spaces[1], True)
        if add_on_reward is not None:
            self.reward = AddOnReward(add_on_reward)
        else:
            task = customization_of(env)
            self.reward = AddOnReward(
                task.observed_add_on_reward or task.add_on_reward, task.vectorized, task.read_only
            )
        observation = np.zeros((1, *(spaces[0].shape or ())), spaces[0].dtype)
        action = np.zeros((1, *(spaces[1].shape or ())), spaces[1].dtype)
        try:
            self.reward(observation, action, observation, {"terminated": np.zeros(1, dtype=bool)})
        except EnvironmentContractError as error:
            if isinstance(error.__cause__, KeyError):
                raise EnvironmentContractError(
                    f"{self.reward.name()}: found a function that looks up info[{error.__cause__}], expected one of "
                    "observations, actions and info['terminated'], which are all that a learned model predicts; set "
                    "add_on_reward"
                ) from error

    def read(self, env: Any, observation: np.ndarray) -> State:
        """Return the observations, which are all that the model knows of the environment."""
        return {"observation": np.array(observation)}

    def reseed(self, state: State, seeds: np.ndarray) -> State:
        """Return the states with the random bits that choose the members and whether the episodes terminate."""
        return {**state, "seed": seeds}

    def step(self, state: State, action: np.ndarray) -> Transition:
        """Predict the successors; a row's depends on its state, action and seed alone, not on the other rows."""
        observation = state["observation"]
        flat = observation.reshape(len(observation), -1).astype(np.float32)
        inputs = np.concatenate([(flat - self._middle) / self._half_width, self._code(action)], axis=1)
        member, threshold = np.full(len(flat), MEAN), np.full(len(flat), self.threshold)
        if not self.deterministic:
            seeds = state["seed"]
            member = ((seeds >> np.uint64(40)) % np.uint64(self.network.members)).astype(np.int64)
            threshold = ((seeds * np.uint64(0xD1342543DE82EF95)) >> np.uint64(11)) * 2.0**-53
        following, probability, disagreement = np.empty_like(flat), np.empty(len(flat)), np.zeros(len(flat))
        outputs = (following, probability, disagreement)
        predict(self._weights, self._widths, self._settings, inputs, flat, member, self.pessimism > 0, *outputs)
        successor = following.reshape(observation.shape).astype(observation.dtype, copy=False)
        terminated = probability > threshold
        reward = self.reward(observation, action, successor, {"terminated": terminated})
        if self.pessimism > 0:
            reward = reward - self.pessimism * disagreement
        return Transition({"observation": successor}, reward, terminated)

    def _code(self, action: np.ndarray) -> np.ndarray:
        """Return the actions as network inputs, float32 ``[n, A]``."""
        bounds = self.network.bounds
        if bounds is None:
            return np.eye(self.network.actions, dtype=np.float32)[action]
        flat = action.reshape(len(action), -1).astype(np.float32)
        return (flat - bounds.middle.numpy()) / bounds.half_width.numpy()


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()


# -- compiled --------------------------------------------------------------------------------------------------------


@njit
def _sort_rows(observation: np.ndarray, rows: int, key: int) -> None:
    """Sort the rows after the first of a flat observation ``[D]`` by the absolute value of one of their numbers."""
    width = len(observation) // rows
    for last in range(2, rows):
        row = last
        while row > 1 and abs(observation[row * width + key]) < abs(observation[(row - 1) * width + key]):
            for column in range(width):
                this, other = row * width + column, (row - 1) * width + column
                observation[this], observation[other] = observation[other], observation[this]
            row -= 1


def _predict(
    weights: np.ndarray,
    widths: np.ndarray,
    settings: tuple[np.ndarray, np.ndarray, np.ndarray, int, int],
    inputs: np.ndarray,
    observation: np.ndarray,
    member: np.ndarray,
    compare: bool,
    following: np.ndarray,
    probability: np.ndarray,
    disagreement: np.ndarray,
) -> None:
    scale, low, high, rows, sorted_by = settings
    members, size = len(weights), observation.shape[1]
    each = np.empty((members, size), np.float32)
    for row in range(len(inputs)):
        probability[row], count = 0.0, 0
        following[row] = 0.0
        for m in range(members):
            counts = member[row] == MEAN or member[row] == m
            if not counts and not compare:
                continue
            outputs = layers(weights[m], 0, widths, inputs[row], False)
            for j in range(size):
                each[m, j] = min(max(observation[row, j] + scale[j] * outputs[j], low[j]), high[j])
            if counts:
                count += 1
                probability[row] += 1.0 / (1.0 + math.exp(-outputs[size]))
                following[row] += each[m]
        probability[row] /= count
        following[row] /= np.float32(count)
        if compare:
            for j in range(size):
                mean = each[:, j].mean()
                variance = ((each[:, j] - mean) ** 2).mean()
                disagreement[row] += math.sqrt(variance) / scale[j] / size
        if rows > 0 and sorted_by != MEAN:
            _sort_rows(following[row], rows, sorted_by)


predict = entry_point(_predict)
"""``(weights [M, P], widths, settings, inputs [n, D + A], observation [n, D], member [n], compare, following [n, D],
probability [n], disagreement [n])``: write the successors that the chosen members, or the mean of all, predict, and the
probabilities that the episodes terminate; and, if they are to be compared, by how much all members differ. The result
of a row does not depend on the others, which that of a matrix product over all of them would, by rounding."""
