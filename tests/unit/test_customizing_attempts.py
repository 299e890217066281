"""ω′ is doubled as long as the customised policy is too far from its prior."""

from __future__ import annotations

import json
import math
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rql_lightning.customizing.attempts import accepted_divergence, train_until_accepted
from rql_lightning.customizing.defaults import Choice


def choice(omega_prime: float = 0.18, alpha_hat: float = 0.18) -> Choice:
    return Choice("ResidualSoftQLearning", 1000, 8, 0.99, omega_prime, alpha_hat)


class Finished:
    """What is read of a finished command line."""

    def __init__(self, path: Path) -> None:
        self.run = SimpleNamespace(path=path)


class Trainings:
    """Runs that end with given divergences, the last one with every further one too."""

    def __init__(self, folder: Path, divergences: list[Any]) -> None:
        self.folder, self.divergences, self.choices = folder, divergences, []

    def __call__(self, choice: Choice) -> Any:
        number = len(self.choices)
        self.choices.append(choice)
        path = self.folder / f"version_{number}"
        path.mkdir()
        divergence = self.divergences[min(number, len(self.divergences) - 1)]
        if divergence != "no file":
            (path / "metrics.json").write_text(json.dumps({"episodes": 4, "kl_to_prior": divergence}))
        return Finished(path)


@pytest.mark.parametrize(
    ("divergences", "accepted", "weights"),
    [
        ([0.9], 1.0, [0.18]),
        ([2.8, 0.1], 1.0, [0.18, 0.36]),
        ([2.8, 1.5, 0.1], 1.0, [0.18, 0.36, 0.72]),
        ([2.8], 1.0, [0.18, 0.36, 0.72, 1.44]),
        ([2.8], math.inf, [0.18]),
        ([None], 1.0, [0.18]),
        (["no file"], 1.0, [0.18]),
    ],
)
def test_the_weight_is_doubled_until_the_policy_is_close(divergences, accepted, weights, tmp_path, capsys):
    trainings = Trainings(tmp_path, divergences)
    finished = train_until_accepted(choice(), accepted, trainings)
    assert [each.omega_prime for each in trainings.choices] == pytest.approx(weights)
    assert [each.alpha_hat for each in trainings.choices] == pytest.approx(weights)
    assert finished.run.path.name == f"version_{len(weights) - 1}"
    said = capsys.readouterr().out.splitlines()
    assert [line.rsplit(" ", 1)[1] for line in said if "once more" in line] == [f"{each:.3g}" for each in weights[1:]]
    assert any("give an omega_prime larger than 1.44" in line for line in said) == (len(weights) == 4)


def test_an_attempt_is_forgotten_before_the_next_one(tmp_path):
    """It holds a replay buffer."""
    trainings, finished = Trainings(tmp_path, [2.8, 2.8, 0.1]), []

    def train(choice: Choice) -> Any:
        assert all(each() is None for each in finished)
        result = trainings(choice)
        finished.append(weakref.ref(result))
        return result

    train_until_accepted(choice(), 1.0, train)
    assert len(finished) == 3


@pytest.mark.parametrize(
    ("omega_prime", "alpha_hat", "accepted"),
    [("auto", None, 1.0), (None, None, 10.0), (0.18, None, math.inf), ("auto", 0.18, math.inf), (0, None, math.inf)],
)
def test_numbers_of_the_users_are_never_changed(omega_prime, alpha_hat, accepted):
    assert accepted_divergence(omega_prime, alpha_hat) == accepted
