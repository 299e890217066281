"""The add-on reward of transitions that a model makes, checked."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from rql_lightning.envs.customization import StepFunction
from rql_lightning.envs.transition import copied, row_of_info
from rql_lightning.errors import EnvironmentContractError, described


class AddOnReward:
    """An add-on reward function on batches of transitions.

    Args:
        function: Step function ``(observation, action, next_observation, info) → float``.
        vectorized: Whether it takes batches; it is otherwise called once per transition.
        read_only: Whether it is known to write into none of its arguments; it is otherwise given copies.
    """

    def __init__(self, function: StepFunction, vectorized: bool = False, read_only: bool = False) -> None:
        self.function, self.vectorized, self.read_only = function, vectorized, read_only

    def __call__(
        self, observation: np.ndarray, action: np.ndarray, next_observation: np.ndarray, info: dict[str, Any]
    ) -> np.ndarray:
        """Return the add-on rewards ``[n]`` of n transitions.

        Args:
            observation: Observations, ``[n, *observation_shape]``.
            action: Actions in the environment's units, ``[n, *action_shape]``.
            next_observation: Observations of the successors, ``[n, *observation_shape]``.
            info: Infos, arrays ``[n, …]``.

        Raises:
            EnvironmentContractError: If the function raises, or returns anything but finite numbers; names the function
                and the transition.
        """
        transition = (observation, action, next_observation, info)
        given = transition if self.read_only else copied(transition)
        if self.vectorized:
            return self._checked(self._ask(given, None), transition)
        rows = zip(*given[:3], (row_of_info(given[3], index) for index in range(len(action))), strict=True)
        return self._checked([self._ask(row, index) for index, row in enumerate(rows)], transition)

    def one(self, observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> float:
        """Return the add-on reward of one transition, whose parts have no batch dimension; errors as for a batch."""
        transition = (observation, action, next_observation, info)
        value = self._ask(transition if self.read_only else copied(transition), 0)
        return float(self._checked([value], tuple(np.asarray(part)[np.newaxis] for part in transition[:2]))[0])

    def _ask(self, arguments: Any, index: int | None) -> Any:
        try:
            return self.function(*arguments)
        except Exception as error:
            reason = described(error)
            where = "" if index is None else f" at {_described((*arguments[:2],))}"
            raise EnvironmentContractError(
                f"{self.name()}: found an error in the search{where} ({reason}), expected a number"
            ) from error

    def _checked(self, values: Any, transition: Any) -> np.ndarray:
        try:
            result = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            self._refuse(repr(values), "a number for each transition")
        count = len(transition[1])
        if result.shape != (count,):
            self._refuse(f"a result of shape {result.shape}", f"the shape {(count,)}")
        if not np.isfinite(result).all():
            index = int(np.argmin(np.isfinite(result)))
            where = _described((transition[0][index], transition[1][index]))
            self._refuse(f"{result[index]} in the search at {where}", "a finite number")
        return result

    def name(self) -> str:
        """Return what messages call the function."""
        function = getattr(self.function, "func", self.function)  # of a partial
        return f"add-on reward {getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"

    def _refuse(self, found: str, expected: str) -> NoReturn:
        raise EnvironmentContractError(f"{self.name()}: found {found}, expected {expected}")


def _described(pair: Any) -> str:
    observation, action = (np.array2string(np.asarray(part), precision=4, threshold=32) for part in pair)
    return f"observation {' '.join(observation.split())}, action {' '.join(action.split())}"
