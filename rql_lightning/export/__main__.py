"""``python -m rql_lightning.export``: export the policy of a checkpoint, with a model card.

    python -m rql_lightning.export runs/cartpole/residual_soft_q/version_0/checkpoints/last.ckpt my_policy.onnx

The suffix of the file chooses the format: .ckpt or .safetensors for this library, .onnx or .pt2 (torch.export) for
deployment, .zip for Stable-Baselines3.
"""

from __future__ import annotations

import argparse

from rql_lightning.export import export_policy
from rql_lightning.reporting.console import command, print_line


def main() -> None:
    """Parse and export."""
    parser = argparse.ArgumentParser(
        prog="python -m rql_lightning.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="Path of a checkpoint, or name of a shipped policy.")
    parser.add_argument("target", help="Path of the file to write; a model card is written beside it.")
    parser.add_argument("--run", help="Folder of the policy's run, for the card; by default that of the checkpoint.")
    parser.add_argument("--force", action="store_true", help="Replace existing files.")
    with command():
        arguments = parser.parse_args()
        target = export_policy(arguments.source, arguments.target, arguments.run, arguments.force)
        print_line(f"{target}: {target.stat().st_size / 1024:.0f} KiB, described in {target}.md")


if __name__ == "__main__":
    main()
