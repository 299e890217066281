"""``python -m rql_lightning.reproduce.export``: export the policy of a checkpoint without the rest of its run.

    python -m rql_lightning.reproduce.export runs/cartpole/rl_prior/version_0/checkpoints/last.ckpt my-policy.ckpt

The file loads with ``load_policy`` and as a ``CheckpointPrior``; shipped priors are such files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rql_lightning.checkpoints import read_checkpoint, resolve, write_atomically
from rql_lightning.errors import OutputError
from rql_lightning.loading import load_policy
from rql_lightning.priors import Prior
from rql_lightning.reporting.console import command, print_line


def export_policy(source: str | Path, target: Path, prior: Prior | None = None) -> None:
    """Write the policy of one checkpoint to a file of its own.

    Args:
        source: A checkpoint, or a shipped policy's name.
        target: The new file.
        prior: Prior of a policy that customises a function or a module, which the file names only.

    Raises:
        CheckpointError: If ``source`` is not a checkpoint of this project.
        OutputError: If ``target`` cannot be written.
    """
    policy = load_policy(source, prior)
    about = read_checkpoint(resolve(source))["rql_lightning"]
    weights = {f"policy.{key}": value.clone() for key, value in policy.state_dict().items()}
    try:
        write_atomically({"state_dict": weights, "rql_lightning": about}, target)
    except OSError as error:
        raise OutputError(f"{target}: found {error.strerror!r}, expected a file that can be written") from error


def main() -> None:
    """Parse and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="Path of a checkpoint.")
    parser.add_argument("target", type=Path, help="Path of the file to write.")
    with command():
        arguments = parser.parse_args()
        export_policy(arguments.source, arguments.target)
        print_line(f"{arguments.target}: {arguments.target.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
