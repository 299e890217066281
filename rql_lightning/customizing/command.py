"""The command line of a customization: ``python -m rql_lightning.customize``."""

from __future__ import annotations

import shlex
import sys

from jsonargparse import Namespace

from rql_lightning.callbacks.signals import Stopped
from rql_lightning.customizing.call import customize
from rql_lightning.parsers import ShortErrors
from rql_lightning.priors import Prior
from rql_lightning.reporting.console import command, tell

OWN: set[str | int] = {"prior", "add_on_reward", "command"}
"""Arguments of the function that have other types on the command line, or are not there."""


def build_parser() -> ShortErrors:
    """Return the parser, whose arguments are those of :func:`customize`."""
    description = "Customise a policy to an add-on reward, with settings that are chosen for it."
    parser = ShortErrors("python -m rql_lightning.customize", description=description, allow_abbrev=False)
    text = (
        "Policy to customise: the zip of a model of Stable-Baselines3 or its folder of the model hub, a checkpoint of "
        "this library or the folder of its run, pretrained:<name>, or the class of a prior, whose arguments follow, "
        "such as rql_lightning.priors.FunctionPrior --prior.log_prob my_task.log_prob."
    )
    parser.add_argument("--prior", type=Prior | str, required=True, help=text)
    text = (
        "Import path of a function (observation, action, next_observation, info) -> float, such as my_task.wish; null "
        "for an id with an add-on reward of its own."
    )
    parser.add_argument("--add_on_reward", type=str | None, default=None, help=text)
    parser.add_function_arguments(customize, skip=OWN)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: Words in place of ``sys.argv[1:]``.

    Raises:
        SystemExit: With code 2 for errors that the user can fix, and if a figure or video failed; with code 130 after
            Ctrl-C and 143 after SIGTERM.
    """
    words = sys.argv[1:] if arguments is None else arguments
    with command():
        given = build_parser().parse_args(words)
        prior = given.prior.as_dict() if isinstance(given.prior, Namespace) else given.prior
        line = shlex.join(["python", "-m", "rql_lightning.customize", *words])
        try:
            result = customize(**{**given.as_dict(), "prior": prior, "command": line})
        except Stopped as stopped:
            tell(f"stopped by {stopped.signal.name}")
            raise
        if result.failures:
            raise SystemExit(2)
