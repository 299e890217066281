"""Training again with a larger ω′, if the policy has left its prior."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rql_lightning.customizing.defaults import Choice
from rql_lightning.customizing.weight import MODERATE, STRONG
from rql_lightning.reporting.console import print_line
from rql_lightning.reporting.metrics import read_metrics

ATTEMPTS, FACTOR = 4, 2.0
"""Most trainings of a customization, and factor of ω′ from one to the next."""
TOLERANCE = 2.0
"""Largest divergence that is accepted, as a multiple of the one that ω′ was chosen for to leading order."""


def accepted_divergence(omega_prime: Any, alpha_hat: float | None) -> float:
    """Return the largest KL(π̂ ‖ π) that the choice of ω′ allows, in nats per step; ∞ if ω′ or α̂ is the user's.

    At a fixed α̂, a larger ω′ makes the policy sharper than its prior, not closer to it.

    Args:
        omega_prime: What the user has asked for: a number, ``"auto"``, or ``None`` for the prior's temperature.
        alpha_hat: What the user has asked for: a number, or ``None`` for that of ω′.
    """
    if alpha_hat is not None or omega_prime not in (None, "auto"):
        return math.inf
    return TOLERANCE * (MODERATE if omega_prime == "auto" else STRONG)


def train_until_accepted(choice: Choice, accepted: float, train: Callable[[Choice], Any]) -> Any:
    """Train a customization, and again with twice the ω′ as long as the policy is too far from its prior.

    The divergence to leading order in 1/ω′, by which ω′ is chosen, is that of small changes. A wish that is best
    fulfilled by giving the task up has a larger one: below some ω′ that is what maximises the add-on return minus ω′
    times the divergence.

    Args:
        choice: Settings of the first training.
        accepted: Largest divergence from the prior in nats per step, on the states of the policy.
        train: Function that trains and returns the finished command line.
    """
    attempt = 1
    while True:
        finished = train(choice)
        divergence = _divergence(finished.run.path / "metrics.json")
        if divergence <= accepted:
            return finished
        found = f"the policy is {divergence:.3g} nats per step from its prior, expected at most {accepted:g}"
        if attempt == ATTEMPTS:
            print_line(f"{found}: give an omega_prime larger than {choice.omega_prime:.3g}")
            return finished
        weight = FACTOR * choice.omega_prime
        print_line(f"{found}: once more, with omega_prime and alpha_hat {weight:.3g}")
        choice, attempt = replace(choice, omega_prime=weight, alpha_hat=weight), attempt + 1
        finished = None  # its memory is free before there is another


def _divergence(path: Path) -> float:
    """Return KL(π̂ ‖ π) in nats per step from a file of metrics; −∞ if it is not known."""
    known = read_metrics(path).get("kl_to_prior") if path.is_file() else None
    return -math.inf if known is None or math.isnan(known) else float(known)
