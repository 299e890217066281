"""``python -m rql_lightning.reproduce.child OUT NAME``: the process of one job of a plan.

It runs the command line of ``rql_lightning.train`` and then writes ``job.json`` itself, as the process that started it
may have been killed meanwhile.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from rql_lightning.checkpoints import read_checkpoint
from rql_lightning.reporting.console import print_line
from rql_lightning.reproduce.jobs import PRODUCTS, State, folder_of, newest, product, read_state, write_state
from rql_lightning.reproduce.plan import read_plan


def main() -> None:
    """Run the job, and exit with its code."""
    root, name = Path(sys.argv[1]), sys.argv[2]
    started, plan, folder = time.monotonic(), read_plan(root), folder_of(root, name)
    job, before = plan[name], read_state(root, name)
    words = job.words(folder, {each: product(root, each) for each in job.needs})
    checkpoint = unfinished(folder) if job.subcommand == "fit" else None
    more = ["--trainer.enable_progress_bar=false"] + ([] if checkpoint is None else [f"--ckpt_path={checkpoint}"])
    print_line(f"$ python {' '.join([*words, *more])}")
    code = _train([*words[2:], *more])
    file = newest(folder, PRODUCTS[job.subcommand])
    run = file.parents[PRODUCTS[job.subcommand].count("/")] if file is not None and code == 0 else None
    seconds = time.monotonic() - started + (0.0 if before is None else before.seconds)
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = max(memory, 0 if before is None else before.peak_memory_bytes)
    told = "" if run is None else str(run.relative_to(folder))
    code = code or (1 if run is None else 0)
    write_state(folder, State(plan.fingerprints()[name], words, told, code, round(seconds, 1), memory))
    sys.exit(code)


def _train(words: list[str]) -> int:
    from rql_lightning.train import main as train

    try:
        train(words)
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else 1
    return 0


def unfinished(folder: Path) -> Path | None:
    """Return the checkpoint that a job goes on from, or ``None`` for a job that starts again.

    A run that was trained to the end and stopped in its final evaluation starts again: there is nothing to train.
    """
    checkpoint = newest(folder, "checkpoints/last.ckpt")
    if checkpoint is None:
        return None
    config = yaml.safe_load((checkpoint.parents[1] / "config.yaml").read_text(encoding="utf-8"))
    data = config["data"].get("init_args", config["data"])
    spent = read_checkpoint(checkpoint)["rql_lightning"]["frames"]
    return checkpoint if spent < data["total_frames"] else None


if __name__ == "__main__":
    main()
