"""The settings that loggers get: every argument of the constructors, with the value that it was given."""

from __future__ import annotations

import copy
import inspect
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rql_lightning import algorithms
from rql_lightning.algorithms import (
    Algorithm,
    IQLearn,
    IQLearnSAC,
    ResidualMCTS,
    ResidualSAC,
    SoftActorCritic,
    SoftQLearning,
)
from rql_lightning.callbacks.hyperparameters import settings
from rql_lightning.data import ReplayDataModule
from rql_lightning.loading import CheckpointPrior
from rql_lightning.priors import FunctionPrior, Prior, SamplerPrior

LEARNING = [getattr(algorithms, name) for name in algorithms.__all__]
LEARNING = [
    each for each in LEARNING if isinstance(each, type) and issubclass(each, Algorithm) and each is not Algorithm
]
SPECIAL = {"alpha": 0.7, "alpha_hat": 0.7, "prior_log_prob_min": -50.0}
SPECIAL |= {"start_at": "pretrained:mountain-car-rl", "hidden_sizes": [8, 8], "goal_scales": [2.0, 3.0]}
SPECIAL |= {"family": "mixture", "rows": 3, "reward_kind": "gail", "regularization": "none"}
SPECIAL |= {"discriminator_sizes": [8], "discriminator_learning_rate_schedule": "linear"}
SPECIAL |= {"reuse": "tree", "variant": "authors", "grid": 4, "samples": 5, "sorted_by": 1}
SPECIAL |= {"target_entropy": -3.5, "huber_delta": 0.6, "max_grad_norm": 5.5, "omega_prime": 0.4}


def parameters(algorithm: type) -> dict[str, Any]:
    """Those of the class and its parents that a user can set, with their defaults."""
    found: dict[str, Any] = {}
    for parent in algorithm.__mro__[: algorithm.__mro__.index(Algorithm)]:
        if "__init__" in vars(parent):
            named = inspect.signature(parent).parameters.values()
            found = {each.name: each.default for each in named if each.kind != each.VAR_KEYWORD} | found
    if algorithm is IQLearn:  # has a loss of its own, and refuses that of its parent
        found.pop("huber_delta")
    if algorithm is IQLearnSAC:
        found.pop("normalize_observations")
    if algorithm is ResidualMCTS:  # an object and a function
        found = {name: value for name, value in found.items() if name not in ("dynamics", "add_on_reward")}
    if "alpha_hat" in found:  # passed on to the parent as alpha, and such a parent's start_at is refused
        found = {name: default for name, default in found.items() if name not in ("alpha", "start_at")}
    return found


def other(name: str, default: Any) -> Any:
    """A valid value that is not the default."""
    if name in SPECIAL:
        return SPECIAL[name]
    if name == "learning_rate_schedule":
        return "linear" if default == "constant" else "constant"
    if isinstance(default, bool):
        return not default
    return default + 3 if isinstance(default, int) else default / 2 + 0.1


def logged(algorithm: Algorithm, data: Any = None) -> dict[str, Any]:
    return settings(SimpleNamespace(lightning_module=algorithm, datamodule=data or ReplayDataModule()))


@pytest.mark.parametrize("algorithm", LEARNING, ids=lambda each: each.__name__)
def test_every_argument_of_an_algorithm_is_logged_as_given(algorithm):
    defaults = parameters(algorithm)
    sampled = getattr(algorithm, "accepts_samples", False)
    frozen = SamplerPrior(torch.zeros_like) if sampled else CheckpointPrior("pretrained:cartpole-rl")
    prior = {"prior": frozen} if "prior" in defaults else {}
    prior |= {"learner": SoftQLearning(tau=0.5)} if "learner" in defaults else {}
    given = {name: other(name, default) for name, default in defaults.items() if name not in prior}
    given |= {"omega_prime": given["alpha_hat"]} if sampled else {}  # the only one that is possible
    assert all(given[name] != defaults[name] for name in given)
    found = logged(algorithm(**prior, **given))
    expected = {f"model/{name}": str(value) if isinstance(value, list) else value for name, value in given.items()}
    expected |= {"model/prior": frozen.origin().removeprefix("prior ")} if "prior" in prior else {}
    expected |= {"model/learner/class": "SoftQLearning", "model/learner/tau": 0.5} if "learner" in prior else {}
    expected |= {"model/class": algorithm.__name__}
    assert {name: found.get(name) for name in expected} == expected
    shown = logged(algorithm(**prior))
    unset = {f"model/{name}" for name, default in defaults.items() if default is None and name != "omega_prime"}
    assert unset.isdisjoint(shown) and expected.keys() - unset <= shown.keys()


def test_algorithms_of_other_packages():
    class Own(SoftActorCritic):
        def __init__(self, weight: float, *, network: Any = None, **settings: Any) -> None:
            super().__init__(gamma=0.25, **settings)

    class Heir(Own):
        pass

    model = Heir(0.5, network=torch.nn.Linear(1, 1), tau=0.75)
    found = logged(model)
    assert (found["model/weight"], found["model/gamma"], found["model/tau"]) == (0.5, 0.25, 0.75)
    assert "model/network" not in found and not list(model.parameters())

    class Nested(SoftQLearning):
        def __init__(self, gamma: float = 0.125) -> None:
            super().__init__(gamma=gamma)
            self.other = SoftQLearning(tau=0.5)

    nested = Nested()
    assert logged(nested)["model/gamma"] == 0.125 and logged(nested.other)["model/gamma"] == 0.99


def test_what_is_recorded_is_copied_with_the_algorithm():
    model = SoftQLearning(alpha=0.25)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert logged(twin) == logged(model) and logged(twin)["model/alpha"] == 0.25
    assert "hyper_parameters" not in model.state_dict() and not model.hparams


def test_the_data_module_and_the_seed():
    kwargs = {"max_episode_steps": 30, "config": {"lanes": [1, 2]}}
    data = ReplayDataModule(env="CartPole-v1", total_frames=2_000, batch_size=32, env_kwargs=kwargs, omega=0.5)
    torch.manual_seed(12)
    found = logged(SoftQLearning(), data)
    assert found["seed"] == 12
    expected = {"env": "CartPole-v1", "reward": "add_on", "omega": 0.5, "reference": False, "total_frames": 2_000}
    expected |= {"num_envs": 64, "frames_per_batch": 256, "updates_per_batch": 64, "batch_size": 32}
    expected |= {"replay_size": 100_000, "warm_up_frames": 1024, "processes": 0}
    expected |= {"env_kwargs/max_episode_steps": 30, "env_kwargs/config/lanes": "[1, 2]"}
    assert {name: value for name, value in found.items() if name.startswith("data/")} == {
        f"data/{name}": value for name, value in expected.items()
    }


def test_a_prior_is_named_by_its_origin():
    def half(observation: Any, action: Any) -> Any:
        return torch.full(action.shape, 0.5).log()

    assert logged(ResidualSAC(FunctionPrior(half)))["model/prior"].endswith(".half")

    class Own(Prior):
        pass

    assert logged(ResidualSAC(Own()))["model/prior"] == "Own"
