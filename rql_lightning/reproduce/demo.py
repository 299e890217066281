"""``python -m rql_lightning.reproduce.demo``: customise CartPole, and show what changed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from rql_lightning.errors import ConfigurationError
from rql_lightning.reporting.console import command, console, print_line
from rql_lightning.reporting.metrics import read_metrics

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures are written to files; no screen is needed

ENV = "rql_lightning/CartPole-v0"
PRIOR = "pretrained:cartpole-rl"
SEED = 1_000_030  # an evaluation episode in which the prior strays far, and the policy a third of it, as on average
STEPS = 500
SETTLED = 100  # number of steps to omit from the pictures, which depend on the start


def main() -> None:
    """Run the experiment with the command line, then draw its result."""
    with command():
        _run()


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/cartpole/residual_soft_q.yaml", help="Config of the experiment.")
    parser.add_argument("--root", default="runs", help="Folder of all runs.")
    arguments, more = parser.parse_known_args()
    if not Path(arguments.config).is_file():
        expected = "expected an existing file; run the command in the project's folder"
        raise ConfigurationError(f"--config: found no file {arguments.config}, {expected}")

    from rql_lightning.train import main as train

    started = time.monotonic()
    sys.argv = sys.argv[:1]
    words = ["fit", "--config", arguments.config, f"--trainer.default_root_dir={arguments.root}", *more]
    print_line(f"python -m rql_lightning.train {' '.join(words)}")
    show(train(words).run.path, time.monotonic() - started)


def show(run: Path, seconds: float) -> None:
    """Print the table and write the pictures of a finished run.

    Args:
        run: Folder of the run.
        seconds: Duration of the run in seconds.
    """
    from rql_lightning.loading import load_policy
    from rql_lightning.reporting.paper import paper_row
    from rql_lightning.reporting.tables import results_table
    from rql_lightning.reporting.videos import SideBySide, multiple_exposure, record_frames, save_gif

    prior, policy = load_policy(PRIOR), load_policy(run / "checkpoints" / "last.ckpt")
    summaries = {
        "prior": read_metrics(run / "prior_metrics.json"),
        "customised": read_metrics(run / "metrics.json"),
        "paper": paper_row("CartPole", "RL Customized"),
    }
    recordings = {
        name: record_frames(actor, ENV, SEED, STEPS)[0] for name, actor in (("prior", prior), ("customised", policy))
    }
    for frames in recordings.values():
        for frame in frames:
            frame[:, frame.shape[1] // 2] = 160  # the centre of the track, which the add-on reward favours
    save_gif(SideBySide(recordings, every=4), run / "before_after.gif", milliseconds=40)
    title = f"steps {SETTLED} to {STEPS} in one picture"
    exposures = {f"{name}: {title}": [multiple_exposure(f[SETTLED:])] for name, f in recordings.items()}
    SideBySide(exposures)[0].save(run / "before_after.png")
    console().print(results_table(f"{ENV}: what customization changed", summaries, "mean_abs_position"))
    print_line(f"customised in {seconds:.0f} s, start-up and evaluation included")
    for what, name in (
        ("run folder", ""),
        ("before | after", "before_after.png"),
        ("in motion", "before_after.gif"),
        ("positions", "distribution.png"),
        ("learning curves", "learning_curves.png"),
    ):
        print_line(f"{what + ':':<17}{run / name}")


if __name__ == "__main__":
    main()
