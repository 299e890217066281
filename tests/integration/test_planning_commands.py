"""ResidualMCTS on the command line: metrics, the reference environment, videos, signals, and what is refused."""

from __future__ import annotations

import json
import os
import signal

import pytest
import yaml

from rql_lightning.evaluation import EpisodeRun
from rql_lightning.reporting.metrics import read_metrics
from rql_lightning.train import main

CONFIG = "configs/highway/mcts_from_{}.yaml"
FEW = ["--model.simulations", "20", "--model.horizon", "3", "--video.episodes", "0", "--evaluation.episodes"]


@pytest.fixture(autouse=True)
def no_arguments_of_pytest(monkeypatch):
    monkeypatch.setattr("sys.argv", ["rql_lightning.train"])


def command_line(*arguments, prior="rl", command="test", root="runs"):
    given = ["--trainer.default_root_dir", str(root), "--trainer.enable_progress_bar", "false"]
    main([command, "--config", CONFIG.format(prior), *FEW, *arguments, *given])


@pytest.mark.parametrize("prior", ["rl", "il"])
def test_metrics_of_a_planner(prior, tmp_path, capsys):
    command_line("2", prior=prior, root=tmp_path)
    folder = tmp_path / "highway" / f"mcts_from_{prior}" / "version_0"
    metrics = read_metrics(folder / "metrics.json")
    assert metrics["simulations"] == 20 and metrics["horizon"] == 3 and metrics["episodes"] == 2
    assert 0 < metrics["decision_seconds_mean"] <= metrics["decision_seconds_p99"] < 5
    assert metrics["frames"] == metrics["updates"] == metrics["train_seconds"] == 0
    assert metrics["kl_to_prior"] > 0 and metrics["lane_index_mean"] > 0.5
    assert "decision_seconds_mean" not in read_metrics(folder / "prior_metrics.json")
    out = capsys.readouterr().out
    assert "prior" in out and "policy" in out


def test_the_same_episodes_on_highway_env_itself(tmp_path, capsys):
    few = ["--evaluation.reference_episodes", "1", "--data.env_kwargs", '{"duration": 8}']
    command_line("2", "--data.reference", "true", *few, root=tmp_path)
    folder = tmp_path / "highway" / "mcts_from_rl" / "version_0"
    metrics, reference = (json.loads((folder / f"{name}metrics.json").read_text()) for name in ("", "reference_"))
    assert reference["same_episodes"] == reference["episodes"] == 1 and metrics["episodes"] == 2
    assert reference["simulations"] == 20
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["init_args"]["simulations"] == 20 and config["data"]["init_args"]["reference"] is True


def test_copies_of_another_environment(tmp_path):
    add_on = ["--data.env", "rql_lightning/CartPole-v0", "--data.env_kwargs", '{"max_episode_steps": 6}']
    prior = ["--model.prior.path", "pretrained:cartpole-rl", "--model.dynamics", "rql_lightning.planning.CopyDynamics"]
    command_line("2", *add_on, *prior, root=tmp_path)
    assert (
        read_metrics(tmp_path / "cartpole" / "mcts_from_rl" / "version_0" / "metrics.json")["episode_length_mean"] == 6
    )


def test_a_prior_that_is_a_function(tmp_path, monkeypatch):
    (tmp_path / "my_prior.py").write_text(
        "import math\nimport torch\n\n\ndef even(observation, action):\n"
        "    return torch.full((len(action),), -math.log(5))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    function = ["--model.prior", "rql_lightning.priors.FunctionPrior", "--model.prior.log_prob", "my_prior.even"]
    command_line("1", *function, "--data.env_kwargs", '{"duration": 2}', root=tmp_path)
    assert read_metrics(tmp_path / "highway" / "mcts_from_rl" / "version_0" / "metrics.json")["episodes"] == 1


def test_a_continuous_task_with_a_grid(tmp_path):
    given = ["--data.env", "rql_lightning/Parking-v0", "--data.env_kwargs", '{"duration": 1}', "--model.grid", "3"]
    command_line("2", *given, "--model.prior.path", "pretrained:parking-rl", root=tmp_path)
    assert (tmp_path / "parking" / "mcts_from_rl" / "version_0" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.horizon", "0"], "model.horizon: found 0"),
        (["--data.env", "rql_lightning/CartPole-v0"], "observation space"),
        (
            ["--data.env", "rql_lightning/Parking-v0", "--model.prior.path", "pretrained:parking-rl"],
            "model.grid, model.samples: found",
        ),
        (["--model.add_on_reward", "math.nothing"], "add_on_reward"),
    ],
)
def test_what_is_refused(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line("1", *arguments, root=tmp_path)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_there_is_nothing_to_fit(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command_line("1", command="fit", root=tmp_path)
    assert (
        "found ResidualMCTS, which is not trained, expected test or validate in place of fit" in capsys.readouterr().err
    )


def test_finished_episodes_are_kept_when_a_test_is_stopped(tmp_path, monkeypatch, capsys):
    class Interrupted(EpisodeRun):
        """Gets a Ctrl-C when the first episodes of the planner have ended."""

        def _restart(self, done, active):
            observation = super()._restart(done, active)
            if self.policy.needs_state:
                os.kill(os.getpid(), signal.SIGINT)
            return observation

    monkeypatch.setattr("rql_lightning.callbacks.evaluation.EpisodeRun", Interrupted)
    with pytest.raises(SystemExit) as stopped:
        command_line("5", "--evaluation.max_envs", "2", "--data.env_kwargs", '{"duration": 3}', root=tmp_path)
    assert stopped.value.code == 130
    metrics = read_metrics(tmp_path / "highway" / "mcts_from_rl" / "version_0" / "metrics.json")
    assert 1 <= metrics["episodes"] <= 2 and metrics["episodes_asked_for"] == 5 and metrics["simulations"] == 20
    assert "stopped after" in " ".join(capsys.readouterr().out.split())
    prior = read_metrics(tmp_path / "highway" / "mcts_from_rl" / "version_0" / "prior_metrics.json")
    assert prior["episodes"] == 5 and "episodes_asked_for" not in prior


@pytest.mark.parametrize("finished", [0, 2])
def test_finished_episodes_on_the_reference_are_kept_when_a_test_is_stopped(finished, tmp_path, monkeypatch, capsys):
    class Interrupted(EpisodeRun):
        """Gets a Ctrl-C on the reference environment when so many episodes there have ended."""

        def _step(self, observation, active):
            ended = len(self.so_far().table)
            if self.name.endswith("(reference)") and ended == finished:
                os.kill(os.getpid(), signal.SIGINT)
            return super()._step(observation, active)

    monkeypatch.setattr("rql_lightning.callbacks.evaluation.EpisodeRun", Interrupted)
    with pytest.raises(SystemExit) as stopped:
        command_line("4", "--data.reference", "true", "--data.env_kwargs", '{"duration": 3}', root=tmp_path)
    assert stopped.value.code == 130
    folder = tmp_path / "highway" / "mcts_from_rl" / "version_0"
    for name in ("metrics.json", "prior_metrics.json"):
        complete = read_metrics(folder / name)
        assert complete["episodes"] == 4 and "episodes_asked_for" not in complete
    out = " ".join(capsys.readouterr().out.split())
    assert (folder / "reference_metrics.json").exists() == ("stopped after" in out) == (finished > 0)
    if finished:
        reference = read_metrics(folder / "reference_metrics.json")
        assert reference["episodes"] == reference["same_episodes"] == finished and reference["episodes_asked_for"] == 4
        assert "stopped after 2 of 4 episodes on the reference environment" in out


def test_the_results_of_the_prior_are_kept_when_no_episode_of_the_planner_has_ended(tmp_path, monkeypatch):
    class Interrupted(EpisodeRun):
        """Gets a Ctrl-C before the planner's first decision."""

        def _step(self, observation, active):
            if self.policy.needs_state:
                os.kill(os.getpid(), signal.SIGINT)
            return super()._step(observation, active)

    monkeypatch.setattr("rql_lightning.callbacks.evaluation.EpisodeRun", Interrupted)
    with pytest.raises(SystemExit):
        command_line("2", "--data.env_kwargs", '{"duration": 3}', root=tmp_path)
    folder = tmp_path / "highway" / "mcts_from_rl" / "version_0"
    assert read_metrics(folder / "prior_metrics.json")["episodes"] == 2 and not (folder / "metrics.json").exists()


def test_a_prior_that_raises_is_an_error_of_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken_prior.py").write_text("def broken(observation, action):\n    return observation[:, 1000]\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = ["--model.prior", "rql_lightning.priors.FunctionPrior", "--model.prior.log_prob", "broken_prior.broken"]
    with pytest.raises(SystemExit) as stopped:
        command_line("1", *function, root=tmp_path)
    found = capsys.readouterr().err.strip().splitlines()[-1]
    assert stopped.value.code == 2
    assert "prior broken_prior.broken: found an error for observations of shape" in found and "IndexError" in found
