"""One call from a prior and a wish to a customised policy."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rql_lightning.callbacks.quiet import without_repetitions
from rql_lightning.customizing.arguments import discount, file_options, integer, path_of, positive, switch, weight_of
from rql_lightning.customizing.attempts import accepted_divergence, train_until_accepted
from rql_lightning.customizing.config import Outputs, config_of, note_of
from rql_lightning.customizing.defaults import Choice, algorithm_of, default_num_envs, default_of
from rql_lightning.customizing.given import GivenPrior, KnownPrior, read_prior
from rql_lightning.customizing.result import Customized
from rql_lightning.customizing.task import Wish, WishedTask, read_task
from rql_lightning.customizing.weight import Weight, choose_weight, measure, temperature_advice
from rql_lightning.errors import ConfigurationError, RqlError, require
from rql_lightning.priors import StableBaselines3Prior
from rql_lightning.reporting.console import print_line
from rql_lightning.reporting.metrics import read_metrics
from rql_lightning.train import run, silence


def customize(
    prior: GivenPrior,
    env: str,
    add_on_reward: Wish | None = None,
    omega_prime: Weight | None = None,
    alpha_hat: float | None = None,
    temperature: float | None = None,
    scale: float | None = None,
    activation: str | None = None,
    vec_normalize: str | Path | None = None,
    total_frames: int | None = None,
    num_envs: int | None = None,
    gamma: float | None = None,
    env_kwargs: dict[str, Any] | None = None,
    seed: int = 0,
    episodes: int = 100,
    video: bool = True,
    folder: str | Path = "runs",
    progress: bool = True,
    command: str | None = None,
) -> Customized:
    """Customise a policy to an add-on reward, with settings that are chosen for it.

    The complete config is left in the run's folder, as ``fit`` of the command line leaves it. Each repetition has a
    folder of its own, and the last one is the result.

    Args:
        prior: Policy to customise: the zip of a model of Stable-Baselines3 or its folder of the model hub, a checkpoint
            of this library or the folder of its run, pretrained:<name>, or a class path with init_args. In Python also
            a Prior, a function (observation, action) -> log-likelihood, or a probabilistic module of TorchRL.
        env: Gymnasium id of the environment, or module:id, which imports the module first.
        add_on_reward: Function (observation, action, next_observation, info) -> float, by its import path on the
            command line, such as my_task.wish. null for an id with an add-on reward of its own.
        omega_prime: Weight of the prior's log-likelihood; a larger one stays closer to the prior. null stands for the
            temperature that the prior was trained at, which not every prior has, and for more if the add-on reward is
            large beside it; auto for a weight that suits the size of the add-on reward. If neither it nor alpha_hat is
            a number, training is repeated with twice the weight, at most three times, while the policy is too far from
            its prior.
        alpha_hat: Temperature of the customised policy; null for omega_prime, which is KL-regularised reinforcement
            learning towards the prior.
        temperature: Temperature of the Boltzmann policy of Q-values, for models of DQN and QR-DQN, which require it.
        scale: Standard deviation of the noise around actions, for models of TD3 and DDPG, which require it.
        activation: Name of the activation function in torch.nn, such as Tanh, for models of Stable-Baselines3 whose
            file does not name it.
        vec_normalize: Path of the file of VecNormalize that a model of Stable-Baselines3 was trained with; null for the
            one in the folder of such a model, if it is given by its folder.
        total_frames: Budget of a training in environment frames; null for 100,000; for Highway and Parking of this
            library, for 300,000 and 600,000.
        num_envs: Number of environments stepped together; null for as many as suit the length of episodes.
        gamma: Discount factor; null for that in the prior's file, if there is one, else 0.99.
        env_kwargs: Further keyword arguments of the environment.
        seed: Seed of the run.
        episodes: Number of evaluation episodes, of the prior and of the customised policy.
        video: Whether to film prior and policy in the same episode, where the environment renders.
        folder: Folder of runs, in which the run has a folder of its own.
        progress: Whether to show a progress bar.
        command: Command line to name in the report, where there is one.

    Returns:
        The customised policy, the prior, and the returns of both.

    Raises:
        RqlError: For errors that the user can fix; names what was found and what was expected.
        Stopped: After Ctrl-C and SIGTERM; a SystemExit, which no ``except Exception`` catches.
    """
    chosen = _Given(
        weight_of(omega_prime),
        positive("alpha_hat", alpha_hat),
        None if total_frames is None else integer("total_frames", total_frames, 1),
        None if num_envs is None else integer("num_envs", num_envs, 1),
        discount(gamma),
    )
    options = file_options(temperature, scale, activation, vec_normalize)
    outputs = Outputs(
        path_of("folder", folder),
        integer("seed", seed, 0, 2**32 - 1),
        integer("episodes", episodes, 1),
        switch("video", video),
        switch("progress", progress),
    )
    silence()
    threads = torch.get_num_threads()
    try:
        # The prior's file is read once more for the run, as its config says.
        with without_repetitions(StableBaselines3Prior.__module__):
            task = read_task(env, add_on_reward, env_kwargs)
            known = _read(prior, task, options)
            outputs = replace(outputs, video=outputs.video and task.can_be_filmed())
            choice = _choose(known, task, chosen)
            note = note_of(known, task)

            def train(choice: Choice) -> Any:
                return run({"subcommand": "fit", "fit": config_of(choice, known, task, outputs)}, command, note)

            accepted = accepted_divergence(chosen.omega_prime, chosen.alpha_hat)
            finished = train_until_accepted(choice, accepted, train)
    finally:
        torch.set_num_threads(threads)
    return _result(finished, task)


@dataclass(frozen=True)
class _Given:
    """What the user has chosen, or ``None`` each."""

    omega_prime: Weight | None
    alpha_hat: float | None
    total_frames: int | None
    num_envs: int | None
    gamma: float | None


def _read(given: GivenPrior, task: WishedTask, options: dict[str, Any]) -> KnownPrior:
    """Read the prior, and check that it fits the environment.

    Raises:
        ConfigurationError: If it lacks a temperature; says which would do.
    """
    try:
        known = read_prior(given, **options)
    except ConfigurationError as error:
        stated = options["temperature"] is not None or options["scale"] is not None
        if stated or not isinstance(given, str | Path):
            raise
        try:
            unscaled = StableBaselines3Prior(str(given), **{**options, "temperature": 1.0})
        except RqlError:  # that is not all that is wrong
            raise error from None
        unscaled.attach(task.observation_space, task.action_space)
        raise ConfigurationError(f"{error}; {temperature_advice(unscaled, task)}") from None
    known.prior.attach(task.observation_space, task.action_space)
    with closing(task.make_env(2)) as env:
        known.prior.probe(known.prior.as_input(env.reset(seed=0)[0]))
    return known


def _choose(known: KnownPrior, task: WishedTask, given: _Given) -> Choice:
    """Choose what the user has not chosen, and tell what it is."""
    gamma = next(each for each in (given.gamma, known.gamma, default_of(task.env, "gamma")) if each is not None)
    total_frames = given.total_frames or default_of(task.env, "total_frames")
    bounded = task.max_episode_steps is not None or given.num_envs is not None
    settled = given.omega_prime not in (None, "auto") and bounded
    if not settled and known.prior.can_act:
        print_line("sampling episodes of the prior, to see how large the add-on return is")
    returns = None if settled else measure(known.prior, task, gamma)
    weight = choose_weight(given.omega_prime, known.prior, returns)
    expected = "a number > 0: alpha_hat is omega_prime by default, and a temperature of 0 has no policy"
    require(given.alpha_hat is not None or weight > 0, "alpha_hat", given.alpha_hat, expected)
    length = task.max_episode_steps or (None if returns is None else returns.longest)
    num_envs = given.num_envs or default_num_envs(total_frames, length)
    require(num_envs <= total_frames, "num_envs", num_envs, f"at most total_frames = {total_frames}")
    algorithm = algorithm_of(known.prior, task.action_space)
    alpha_hat = weight if given.alpha_hat is None else given.alpha_hat
    own = known.prior.temperature
    raised = f" (raised from the prior's temperature {own:.3g})" if given.omega_prime is None and own != weight else ""
    print_line(
        f"{algorithm}: omega_prime {weight:.3g}{raised}, alpha_hat {alpha_hat:.3g}, gamma {gamma:g}, "
        f"{total_frames:,} frames in {num_envs} environment{'s' * (num_envs != 1)}"
    )
    return Choice(algorithm, total_frames, num_envs, gamma, weight, alpha_hat)


def _result(finished: Any, task: WishedTask) -> Customized:
    """Read the results of a run from its folder."""
    run_folder, model = finished.run.path, finished.model
    files = {"prior": run_folder / "prior_metrics.json", "policy": run_folder / "metrics.json"}
    metrics = {name: read_metrics(path) for name, path in files.items() if path.is_file()}
    policy = model.policy.cpu().eval().requires_grad_(False)
    print_line(f"config: {run_folder / 'config.yaml'}")
    policy.task = task.base  # no id of this call means anything elsewhere
    title, failures = f"{task.title}: before and after", tuple(finished.run.failures)
    return Customized(policy, model.prior, run_folder, metrics, title, task.metric, failures)
