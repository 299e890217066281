"""The paper's experiments as plans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rql_lightning.errors import ConfigurationError
from rql_lightning.reproduce.plan import Job, Plan, Row, joined

LAST = "checkpoints/last.ckpt"
PRIOR = "model.prior.init_args.path"


@dataclass(frozen=True)
class Task:
    """A task of Table 1.

    Attributes:
        paper: Name in the paper's table.
        customise: Config that customises a prior, without ``_from_il``.
        demonstrations: Number of episodes that the imitation prior learns from.
        minutes: Minutes that each config takes on one core, by name.
        plans: Whether the table has rows of planning.
        reference: Whether the task has a reference environment besides its compiled form.
    """

    paper: str
    customise: str
    demonstrations: int
    minutes: Mapping[str, float]
    plans: bool = False
    reference: bool = False


TASKS = {
    "cartpole": Task(
        "CartPole",
        "residual_soft_q",
        100,
        {"rl_prior": 1.3, "demonstrations": 0.1, "behavior_cloning": 0.5, "customise": 0.8, "full": 1.5},
    ),
    "mountain_car": Task(
        "MountainCarContinuous",
        "residual_sac",
        200,
        {"rl_prior": 1.7, "demonstrations": 0.1, "behavior_cloning": 0.4, "customise": 0.6, "full": 3.0},
    ),
    "highway": Task(
        "Highway",
        "residual_soft_q",
        1_000,
        {
            "rl_prior": 11.0,
            "demonstrations": 0.3,
            "behavior_cloning": 5.0,
            "customise": 5.0,
            "full": 11.0,
            "mcts": 18.0,
        },
        plans=True,
        reference=True,
    ),
    "parking": Task(
        "Parking",
        "residual_sac",
        1_000,
        {"rl_prior": 2.6, "demonstrations": 0.1, "behavior_cloning": 1.0, "customise": 5.0, "full": 7.5},
        reference=True,
    ),
}
POLICIES: tuple[str, ...] = ("RL Prior Policy", "RL Customized", "RL ME-MCTS")
POLICIES += ("IL Prior Policy", "IL Customized", "IL ME-MCTS", "RL Full Policy")
QUICK = {"data.total_frames": "12_288", "evaluation.every_n_frames": "100_000_000", "video.episodes": "0"}
"""Settings of ``--quick``, which exercises everything and shows nothing about results."""
QUICK_EPISODES, QUICK_SECONDS = 20, 15.0
"""Largest number of demonstrations, and what a job takes on one core, with ``--quick``."""


class Builder:
    """Makes the jobs of one task and training seed.

    Args:
        name: Name of the task's folder of configs.
        seed: Training seed.
        quick: Whether budgets are cut down to exercise the plan only.
        reference: Whether policies are evaluated on the reference environment as well, where the task has one.
    """

    def __init__(self, name: str, seed: int, quick: bool = False, reference: bool = False) -> None:
        self.name, self.seed, self.quick, self.task = name, seed, quick, TASKS[name]
        episodes, on_reference = ("10", "2") if quick else ("1_000", "100")
        self.evaluated = {"evaluation.episodes": episodes}
        if reference and self.task.reference:
            self.evaluated |= {"data.reference": "true", "evaluation.reference_episodes": on_reference}

    def job(
        self,
        config: str,
        policy: str | None,
        settings: Mapping[str, str],
        subcommand: str = "fit",
        what: str | None = None,
        label: str = "",
        pictures: Mapping[str, str] | None = None,
    ) -> Job:
        """Return one job.

        Args:
            config: Name of the config.
            policy: Row of the table, or ``None``.
            settings: Settings other than those of evaluation.
            subcommand: ``fit``, ``test`` or ``predict``.
            what: Key of the task's ``minutes``; by default the config.
            label: Distinguishes jobs with one config.
            pictures: Settings that no result depends on.
        """
        settings = {**(self.evaluated if subcommand != "predict" else {}), **settings}
        if self.quick:
            settings = {**(QUICK if subcommand == "fit" else {}), **settings}
            settings |= {"episodes": str(QUICK_EPISODES)} if subcommand == "predict" else {}
        row = None if policy is None else Row(self.name, policy, self.seed)
        path = f"configs/{self.name}/{config}.yaml"
        seconds = QUICK_SECONDS if self.quick else 60 * self.task.minutes.get(what or config, 1.0)
        name = f"{self.name}/{config}{label}/{self.seed}"
        return Job(name, subcommand, path, self.seed, settings, row, seconds, pictures or {})

    def prior(self) -> Job:
        """Return the training of the RL prior."""
        return self.job("rl_prior", "RL Prior Policy", {})

    def demonstrations(self, prior: Job) -> Job:
        """Return the episodes of the RL prior that imitation learns from."""
        settings = {PRIOR: f"{{{prior.name}}}/{LAST}", "episodes": str(self.task.demonstrations)}
        return self.job("demonstrations", None, settings, "predict")

    def imitation(self, demonstrations: Job, episodes: int | None = None, label: str = "") -> Job:
        """Return the training of the imitation prior; ``episodes`` restricts it to the first of the demonstrations."""
        settings = {"data.demonstrations": f"{{{demonstrations.name}}}/trajectories"}
        wanted = min(QUICK_EPISODES, episodes or QUICK_EPISODES) if self.quick else episodes
        settings |= {} if wanted is None else {"data.episodes": str(wanted)}
        settings |= ALONE if wanted == 1 else {}
        settings |= {"data.total_frames": "32_768"} if self.quick else {}
        return self.job("behavior_cloning", f"IL Prior Policy{label and ', ' + label[1:]}", settings, label=label)

    def customised(self, prior: Job, kind: str, settings: Mapping[str, str] | None = None, label: str = "") -> Job:
        """Return the customization of a prior; ``kind`` is ``RL`` or ``IL``."""
        config = self.task.customise + ("_from_il" if kind == "IL" else "")
        settings = {PRIOR: f"{{{prior.name}}}/{LAST}", **(settings or {})}
        policy = f"{kind} Customized{label and ', ' + label[1:]}"
        pictures = {"video.episodes": "1"} if kind == "RL" and not label else None  # for the report's before and after
        return self.job(config, policy, settings, what="customise", label=label, pictures=pictures)

    def planned(self, prior: Job, kind: str) -> Job:
        """Return planning from a prior."""
        settings = {PRIOR: f"{{{prior.name}}}/{LAST}", "video.episodes": "0"}
        return self.job(f"mcts_from_{kind.lower()}", f"{kind} ME-MCTS", settings, "test", "mcts")


def table1(tasks: Sequence[str], policies: Sequence[str], seeds: Iterable[int], quick: bool, command: str) -> Plan:
    """Return the plan of Table 1.

    Args:
        tasks: Names of tasks.
        policies: Rows to make; what they need is made as well.
        seeds: Training seeds; each has priors of its own.
        quick: Whether to cut down all budgets.
        command: Command line.

    Raises:
        ConfigurationError: If the paper has no such rows of these tasks.
    """
    parts = [_rows(Builder(task, seed, quick, reference=True), set(policies)) for seed in seeds for task in tasks]
    plan = joined("table1", command, parts)
    if not plan.jobs:
        raise ConfigurationError(f"--policies: found {', '.join(policies)}, expected rows of {', '.join(tasks)}")
    return plan


def _rows(make: Builder, wanted: set[str]) -> list[Job]:
    prior = make.prior()
    demonstrations = make.demonstrations(prior)
    imitation = make.imitation(demonstrations)
    rows = [prior, demonstrations, imitation, make.customised(prior, "RL"), make.customised(imitation, "IL")]
    rows += [make.planned(prior, "RL"), make.planned(imitation, "IL")] if make.task.plans else []
    rows += [make.job("full", "RL Full Policy", {})]
    return needed(rows, {job.name for job in rows if job.row is not None and job.row.policy in wanted})


def needed(jobs: Sequence[Job], names: set[str]) -> list[Job]:
    """Return the jobs of these names and those that they need, in order."""
    kept: list[Job] = []
    for job in reversed(jobs):
        if job.name in names:
            kept.append(job)
            names = names | set(job.needs)
    return kept[::-1]


ABLATIONS = {
    "cartpole": {"greedy": "Greedy"},
    "highway": {"greedy": "Greedy"},
    "mountain_car": {
        "greedy": "Greedy",
        "kl_reward": "KL reward",
        "prior_likelihood_reward": "Prior-likelihood reward",
    },
    "parking": {"greedy": "Greedy", "kl_reward": "KL reward", "prior_likelihood_reward": "Prior-likelihood reward"},
}
"""Configs of the alternatives of section 5.4 and Appendix F, and their names in tables."""
TUNED: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "mountain_car": {
        "residual_sac": {"model.omega_prime": "0.03", "model.learning_rate": "1e-3"},
        "greedy": {"model.omega_prime": "0.1", "model.learning_rate": "3e-4"},
        "kl_reward": {"model.omega_prime": "0.03", "model.learning_rate": "3e-4"},
        "prior_likelihood_reward": {"model.omega_prime": "0.03", "model.learning_rate": "3e-4"},
    },
    "parking": {
        "residual_sac": {"model.omega_prime": "0.02"},
        "greedy": {"model.omega_prime": "0.07"},
        "kl_reward": {"model.omega_prime": "0.007"},
        "prior_likelihood_reward": {"model.omega_prime": "0.02"},
    },
}
"""Settings of the ablations by task and config, each the best of as many trials (docs/ablations.md)."""


def ablations(tasks: Sequence[str], policies: Sequence[str], seeds: Iterable[int], quick: bool, command: str) -> Plan:
    """Return the plan of the ablations: residual Q-learning and its alternatives on the shipped priors, as tuned."""
    parts = []
    for seed in seeds:
        for task in tasks:
            make = Builder(task, seed, quick)
            compared = {make.task.customise: "Residual", **ABLATIONS[task]}
            tuned = TUNED.get(task, {})
            jobs = [
                make.job(each, name, tuned.get(each, {}), what="customise", label="_ablation")  # Table 1 has others
                for each, name in compared.items()
            ]
            parts.append([job for job in jobs if not policies or (job.row and job.row.policy in policies)])
    return joined("ablations", command, parts)


OMEGAS = ("0.1", "0.3", "1", "3", "10")
"""Factors of each task's ω′ and α̂ in the sweep."""


def omega_sweep(tasks: Sequence[str], policies: Sequence[str], seeds: Iterable[int], quick: bool, command: str) -> Plan:
    """Return the plan of the trade-off between both rewards: ω′ = α̂ at multiples of the config's value."""
    parts = []
    for seed in seeds:
        for task in tasks:
            make, value = Builder(task, seed, quick), OMEGA_PRIME[task]
            jobs = []
            for factor in OMEGAS:
                weight = f"{value * float(factor):g}"
                settings = {"model.omega_prime": weight, "model.alpha_hat": weight}
                label = f"_omega={weight}"
                jobs.append(make.job(make.task.customise, "RL Customized", settings, what="customise", label=label))
            parts.append(jobs)
    return joined("omega_sweep", command, parts)


OMEGA_PRIME = {"cartpole": 0.9, "mountain_car": 0.1, "highway": 1.0, "parking": 0.007}
"""ω′ = α̂ of the configs."""
EPISODES = (1, 3, 10, 30, 100)
ALONE = {"data.validation_fraction": "0", "data.total_frames": "100_000"}
"""Settings of an imitation prior from one episode: none is left to hold out, and so to stop early by."""


def demonstrations_sweep(
    tasks: Sequence[str], policies: Sequence[str], seeds: Iterable[int], quick: bool, command: str
) -> Plan:
    """Return the plan of imitation priors from few demonstrations, and of their customization."""
    parts = []
    for seed in seeds:
        for task in tasks:
            make = Builder(task, seed, quick)
            prior = make.prior()
            demonstrations = make.demonstrations(prior)
            jobs = [prior, demonstrations]
            for episodes in EPISODES:
                imitation = make.imitation(demonstrations, episodes, f"_{episodes}")
                jobs += [imitation, make.customised(imitation, "IL", label=f"_{episodes}")]
            parts.append(jobs)
    return joined("demonstrations_sweep", command, parts)


EXPERIMENTS: dict[str, Callable[..., Plan]] = {
    "table1": table1,
    "ablations": ablations,
    "omega_sweep": omega_sweep,
    "demonstrations_sweep": demonstrations_sweep,
}

TITLES = {
    "table1": "Table 1",
    "ablations": "Residual Q-learning and its alternatives",
    "omega_sweep": "The weight ω′",
    "demonstrations_sweep": "Priors from few demonstrations",
}
"""Titles of reports."""
