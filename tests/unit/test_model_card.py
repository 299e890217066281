"""Model cards say what a run's folder says, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from exported_policies import CARTPOLE, actor, module_prior, soft_q, wrapped

from rql_lightning.errors import ConfigurationError, OutputError
from rql_lightning.export import export_policy
from rql_lightning.loading import CheckpointPrior
from rql_lightning.reporting.metrics import write_metrics

SUMMARY = {"success_rate": 1.0, "basic_return": 427.5, "add_on_return": -17.25, "speed": 0.5, "episodes": 100}
AFTER = {f"{key}_mean" if "return" in key or key == "speed" else key: value for key, value in SUMMARY.items()}


def run_in(folder: Path) -> Path:
    """The folder of a run that was evaluated, with a checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    about = {"algorithm": "ResidualSoftQLearning", "frames": 1024, "updates": 60}

    policy = soft_q(CheckpointPrior(CARTPOLE), [8])
    weights = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    checkpoint = {"state_dict": weights, "rql_lightning": {**about, "policy": policy.describe()}}
    torch.save(checkpoint, folder / "checkpoints/last.ckpt")
    write_metrics({**AFTER, "frames": 1024}, folder / "metrics.json")
    write_metrics({**AFTER, "add_on_return_mean": -44.0}, folder / "prior_metrics.json")
    settings = {"model/omega_prime": 0.7, "data/reward": "add_on", "seed": 5}
    (folder / "hparams.yaml").write_text(yaml.safe_dump(settings))
    data = {"env": "rql_lightning/CartPole-v0", "add_on_reward": "my_task.wish"}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": data}}))
    fit = {"command": "python -m a | b", "versions": {"torch": "2.6.0", "gymnasium": "1.4.0"}, "commit": None}
    (folder / "run.json").write_text(json.dumps({"metric": "speed", "stages": {"fit": fit}}))
    return folder


def card_of(policy, target, **options) -> str:
    export_policy(policy, target, **options)
    return target.with_name(f"{target.name}.md").read_text(encoding="utf-8")


def rows_of(text: str) -> dict[str, str]:
    cells = [line.strip("| ").partition(" | ") for line in text.splitlines() if re.match(r"\| [^|]", line)]
    return {name: rest.strip("`") for name, _, rest in cells}


def test_everything_that_a_run_says(tmp_path):
    run = run_in(tmp_path / "run")
    text = card_of(run / "checkpoints/last.ckpt", tmp_path / "policy.ckpt")
    rows = rows_of(text)
    expected = {
        "prior": CARTPOLE,
        "ω′": "0.7",
        "α̂": "0.4",
        "add-on reward": "my_task.wish",
        "reward that was learnt": "add_on",
        "algorithm": "ResidualSoftQLearning",
        "frames": "1,024",
        "seed": "5",
        "command": "python -m a \\| b",
        "versions": "torch 2.6.0, gymnasium 1.4.0",
        "add-on return": "-44.00 | -17.25",
        "speed": "0.500 | 0.500",
        "episodes": "100 | 100",
    }
    assert {name: rows.get(name) for name in expected} == expected
    assert "commit" not in rows and "## Before and after" in text
    assert 'load_policy("policy.ckpt")' in text.replace("'", '"')


@pytest.mark.parametrize(
    ("missing", "absent"),
    [
        ("metrics.json", ["add-on return", "episodes"]),
        ("hparams.yaml", ["seed", "reward that was learnt"]),
        ("config.yaml", ["add-on reward"]),
        ("run.json", ["command", "versions", "speed"]),
    ],
)
def test_what_is_not_there_is_left_out(missing, absent, tmp_path):
    run = run_in(tmp_path / "run")
    (run / missing).unlink()
    rows = rows_of(card_of(run / "checkpoints/last.ckpt", tmp_path / "policy.ckpt"))
    assert not set(absent) & rows.keys()
    assert rows["ω′"] == "0.7" and rows["frames"] == "1,024"


@pytest.mark.parametrize(
    ("env", "wish", "reward", "expected"),
    [
        ("rql_lightning/CartPole-v0", None, "add_on", "that of rql_lightning/CartPole-v0"),
        ("rql_lightning/CartPole-v0", None, "total", "that of rql_lightning/CartPole-v0"),
        ("rql_lightning/CartPole-v0", None, "basic", None),
        ("rql_lightning/CartPole-v0", None, None, None),
        ("CartPole-v1", None, "basic", None),
        ("CartPole-v1", None, "total", None),
        ("CartPole-v1", "my_task.wish", "total", "my_task.wish"),
        ("CartPole-v1", "my_task.wish", "basic", None),
        ("a_module_that_is_not_there:my/Env-v0", None, "total", None),
    ],
)
def test_the_add_on_reward_is_the_one_that_was_learnt(env, wish, reward, expected, tmp_path):
    run = run_in(tmp_path / "run")
    settings = {} if reward is None else {"data/reward": reward}
    (run / "hparams.yaml").write_text(yaml.safe_dump(settings))
    data = {"env": env, "add_on_reward": wish}
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": data}}))
    assert rows_of(card_of(soft_q(None, [8]), tmp_path / "policy.ckpt", run=run)).get("add-on reward") == expected


def test_without_a_prior_there_is_no_before(tmp_path):
    run = run_in(tmp_path / "run")
    (run / "prior_metrics.json").unlink()
    text = card_of(soft_q(None, [8]), tmp_path / "policy.ckpt", run=run)
    assert "## Evaluation" in text and "Before" not in text and rows_of(text)["add-on return"] == "-17.25"


def test_an_evaluation_of_other_weights_is_left_out(tmp_path):
    run = run_in(tmp_path / "run")
    write_metrics({**AFTER, "frames": 512}, run / "metrics.json")
    text = card_of(run / "checkpoints/last.ckpt", tmp_path / "policy.ckpt")
    assert "-17.25" not in text and "is of frame 512, and this policy of frame 1024: it is left out" in text


def test_a_policy_alone_has_a_card_without_a_run(tmp_path):
    text = card_of(actor(wrapped(actor())), tmp_path / "policy.ckpt")
    rows = rows_of(text)
    assert rows["observations"] == "float32 [3]" and rows["law"] == "SquashedGaussianPolicy, SquashedNormal"
    assert rows["prior"] == "a.ckpt" and rows["α̂"] == "0.25"
    assert not {"ω′", "frames", "seed", "algorithm", "versions", "add-on reward"} & rows.keys()
    assert "return" not in text


def test_a_q_network_says_its_temperature(tmp_path):
    text = card_of(soft_q(None, [8]), tmp_path / "policy.zip")
    assert "DQN.load('policy.zip')" in text and "StableBaselines3Prior('policy.zip', temperature=0.4)" in text
    assert "critics are untrained" in card_of(actor(), tmp_path / "actor.zip")


def test_a_prior_that_is_code_is_said_to_be_given(tmp_path):
    text = card_of(soft_q(module_prior(), [8]), tmp_path / "policy.ckpt")
    assert "`load_policy('policy.ckpt', prior=…)`" in text and "prior=…" not in card_of(
        actor(), tmp_path / "actor.ckpt"
    )


@pytest.mark.parametrize("name", ["hparams.yaml", "run.json", "metrics.json"])
@pytest.mark.parametrize("text", ["{", "- a list", "!!python/object:os.system {}"])
def test_a_damaged_file_of_the_run_is_named(name, text, tmp_path):
    run = run_in(tmp_path / "run")
    (run / name).write_text(text)
    with pytest.raises(ConfigurationError, match=name):
        export_policy(run / "checkpoints/last.ckpt", tmp_path / "policy.ckpt")
    assert not (tmp_path / "policy.ckpt").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", '{"stages": 3}'),
        ("config.yaml", "data: 5"),
        ("metrics.json", '{"success_rate": {}, "frames": 1024}'),
    ],
)
def test_a_file_of_something_else_is_refused(name, text, tmp_path):
    run = run_in(tmp_path / "run")
    (run / name).write_text(text)
    with pytest.raises(ConfigurationError, match="run: found files with other content"):
        export_policy(run / "checkpoints/last.ckpt", tmp_path / "policy.ckpt")


def test_a_name_that_is_too_long_for_the_card_leaves_neither(tmp_path):
    """The card's file name is three characters longer than the policy's."""
    target = tmp_path / f"{'a' * 249}.ckpt"
    with pytest.raises(OutputError, match=r"\.ckpt\.md: "):
        export_policy(CARTPOLE, target)
    assert not list(tmp_path.iterdir())
