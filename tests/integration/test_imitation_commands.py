"""From demonstrations to a customised policy on the command line, on budgets of seconds."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rql_lightning.algorithms import FrozenPolicy
from rql_lightning.demonstrations import main as summary
from rql_lightning.loading import load_policy
from rql_lightning.reproduce.coverage import main as coverage
from rql_lightning.reproduce.sweep import main as sweep
from rql_lightning.train import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/tutorials/demonstrations.md", ROOT / "docs/imitation.md"]
EVALUATION = ["--evaluation.episodes=3", "--evaluation.episodes_during_fit=2", "--evaluation.figures=false"]
EVALUATION += ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
COLLECTED = ["--data.num_envs=8", "--data.frames_per_batch=64", "--data.total_frames=512", "--data.warm_up_frames=64"]
COLLECTED += ["--data.updates_per_batch=2", "--data.batch_size=16"]
DRAWN = ["--data.total_frames=2048", "--data.updates_per_batch=4", "--data.batch_size=32"]
TASKS = {"cartpole": "cartpole", "mountain_car": "mountain_car_continuous"}


@pytest.fixture
def command(tmp_path, monkeypatch) -> Callable[..., Path]:
    """``(command, config, *arguments) →`` the folder of the run, in a root of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train"])

    def command(what: str, config: str, *arguments: str) -> Path:
        main([what, "--config", str(ROOT / "configs" / config), *arguments])
        task, _, name = config.removesuffix(".yaml").partition("/")
        return max(Path("runs", TASKS[task], name).iterdir(), key=lambda path: path.stat().st_mtime)

    return command


@pytest.mark.parametrize(("task", "residual"), [("cartpole", "residual_soft_q"), ("mountain_car", "residual_sac")])
def test_three_commands_from_demonstrations_to_a_customised_policy(command, task, residual):
    demonstrations = command("predict", f"{task}/demonstrations.yaml", "--episodes=6") / "trajectories"
    assert demonstrations.is_dir()
    drawn = [*DRAWN, "--data.episodes=6", "--video.episodes=0"]
    cloned = command("fit", f"{task}/behavior_cloning.yaml", *drawn, *EVALUATION)
    prior = cloned / "checkpoints" / "last.ckpt"
    assert load_policy(prior).prior is None
    start = ["--model.prior_frames=0"] if residual == "residual_sac" else []
    arguments = [f"--model.prior.path={prior.resolve()}", *COLLECTED, *EVALUATION, *start, "--video.episodes=0"]
    run = command("fit", f"{task}/{residual}_from_il.yaml", *arguments)
    assert load_policy(run / "checkpoints" / "last.ckpt").prior is not None
    assert json.loads((run / "metrics.json").read_text())["kl_to_prior"] >= 0


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("cartpole", "behavior_cloning"),
        ("cartpole", "gail"),
        ("mountain_car", "iq_learn"),
        pytest.param("mountain_car", "behavior_cloning", marks=SLOW),
        pytest.param("mountain_car", "gail", marks=SLOW),
        pytest.param("cartpole", "iq_learn", marks=SLOW),
    ],
)
def test_what_imitation_logs_is_documented(command, task, name):
    command("predict", f"{task}/demonstrations.yaml", "--episodes=6")
    data = COLLECTED if name == "gail" or (task, name) == ("mountain_car", "iq_learn") else DRAWN
    run = command("fit", f"{task}/{name}.yaml", *data, *EVALUATION, "--data.episodes=6", "--video.episodes=0")
    tags = EventAccumulator(str(run)).Reload().Tags()["scalars"]
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    names = {tag.partition("/")[2] for tag in tags if tag.startswith("train/")}
    assert len(names) > 4 and [found for found in sorted(names) if f"`{found}`" not in text] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.demonstrations=nowhere"], "nowhere: found no such folder, expected a folder of demonstrations"),
        (["--data.episodes=7"], "data.episodes: found 7, expected at most 6"),
        (["--data.episodes=1"], "found 1 episode, expected at least 2"),
        (["--data.env=rql_lightning/MountainCarContinuous-v0"], "found demonstrations of rql_lightning/CartPole-v0"),
        (["--data.validation_fraction=1"], "data.validation_fraction: found 1.0, expected a number in [0, 1)"),
        (["--model.family=mixture"], "model.family: found 'mixture', expected 'categorical'"),
        (["--model.rows=3"], "model.rows: found 3"),
    ],
)
def test_bad_input_is_one_line(command, capsys, arguments, message):
    command("predict", "cartpole/demonstrations.yaml", "--episodes=6")
    with pytest.raises(SystemExit) as stop:
        command("fit", "cartpole/behavior_cloning.yaml", *DRAWN, *EVALUATION, "--data.episodes=6", *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and error.count("\n") == 1


def test_predict_writes_what_was_frozen(command):
    folder = command("predict", "cartpole/demonstrations.yaml", "--episodes=2") / "trajectories"
    about = json.loads((folder / "demonstrations.json").read_text())
    assert about["policy"] == "prior pretrained:cartpole-rl" and FrozenPolicy.needs_checkpoint is False


# -- the tutorial ----------------------------------------------------------------------------------------------------

SMALL = {"predict": ["--episodes=40"], "fit": [*EVALUATION, "--video.episodes=0"], "test": EVALUATION[:1]}


@pytest.mark.slow
def test_every_command_of_the_tutorial_runs_in_its_order(tmp_path, monkeypatch, capsys):
    """On small budgets, and on the files that the commands before it have written."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    lines = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    commands = [line for line in lines if line.startswith("python -m rql_lightning.")]
    assert len(commands) >= 6
    for line in commands:
        run_small(shlex.split(line, comments=True))
    assert "KL, customised" in capsys.readouterr().out


def run_small(words: list[str]) -> None:
    """Run one command of the tutorial in this process."""
    module, arguments = words[2].removeprefix("rql_lightning."), words[3:]
    if module == "demonstrations":
        summary(arguments)
    elif module == "reproduce.coverage":
        coverage([*arguments, "--episodes=3"])
    elif module == "reproduce.sweep":
        sweep([*[word for word in arguments if word not in ("100", "1000")], *DRAWN, *EVALUATION])
    else:
        command, small = arguments[0], list(SMALL[arguments[0]])
        if command == "fit":
            cloning = "behavior_cloning" in arguments[2]
            small += [*DRAWN, "--data.episodes=40"] if cloning else COLLECTED
        main([*arguments, *small])


def test_coverage_against_the_expert_itself(tmp_path, capsys):
    path = "pretrained:cartpole-rl"
    words = ["--expert", path, "--customised", path, "--priors", f"1={path}", "10=pretrained:cartpole-il"]
    coverage([*words, "--episodes=3", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "coverage.json").read_text())
    assert found["1/kl_demonstrated"] == pytest.approx(0.0, abs=1e-6) and found["10/kl_customised"] > 1e-6
    assert found["1/log_prob_floor"] <= found["1/log_prob_quantile"] < 0 and found["1/success_rate"] == 1.0
    assert (tmp_path / "coverage.png").is_file()
    for bad, message in ((["--priors", "1"], "expected NAME=CHECKPOINT"), (["--episodes=0"], "--episodes: found 0")):
        with pytest.raises(SystemExit) as stop:
            coverage([*words, *bad, "--out", str(tmp_path)])
        assert stop.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        coverage(["--expert", path, "--customised", "pretrained:highway-rl", "--priors", f"1={path}"])
    assert "expected one task" in capsys.readouterr().err
