"""The model card of an exported policy, from the policy and from what its run left in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml  # type: ignore[import-untyped]

from rql_lightning.envs.registration import UNNAMED_IDS, has_add_on_reward
from rql_lightning.errors import ConfigurationError
from rql_lightning.export.laws import alone
from rql_lightning.export.stable_baselines3 import boltzmann_temperature
from rql_lightning.loading import GIVEN
from rql_lightning.policies import Categorical, Policy, SquashedNormal
from rql_lightning.reporting.html.run import ORIGIN, summaries
from rql_lightning.reporting.tables import results_rows

UNNAMED = "a function without an import path"
LOADING = {
    ".ckpt": (
        "from rql_lightning import load_policy\n\npolicy = load_policy({name!r})\naction = policy.act(observation)"
    ),
    ".pt2": (
        "import torch\n\npolicy = torch.export.load({name!r}).module()\n"
        "action, parameters = policy(torch.as_tensor(observation).unsqueeze(0))"
    ),
    ".onnx": (
        "import onnxruntime\n\nsession = onnxruntime.InferenceSession({name!r})\n"
        'action, parameters = session.run(None, {{"observation": observation[None]}})'
    ),
    ".zip": (
        "from stable_baselines3 import {algorithm}\n\nmodel = {algorithm}.load({name!r})\n"
        "action, _ = model.predict(observation, deterministic=True)"
    ),
}
"""How to load a file and ask it for an action; by suffix."""
LOADING[".safetensors"] = LOADING[".ckpt"]


def card(policy: Policy, about: Mapping[str, Any], target: Path, run: Path | None) -> str:
    """Return the model card of a policy as Markdown; what is not known is left out.

    Args:
        policy: The policy.
        about: What a checkpoint says of the policy: ``algorithm``, ``frames``, ``updates``, or less.
        target: Path of the exported file.
        run: Folder of the policy's run, or ``None``.

    Raises:
        ConfigurationError: If a file of the run cannot be read; names it.
    """
    settings, config, origin = (_read(run, name) for name in ("hparams.yaml", "config.yaml", ORIGIN))
    try:
        facts = {**_of_policy(policy), **_of_run(about, settings, config, origin)}
        evaluation = [] if run is None else _evaluation(run, about, origin.get("metric"))
    except (AttributeError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            f"{run}: found files with other content ({reason}), expected those of a run"
        ) from error
    table = [f"| {name} | {_cell(value)} |" for name, value in facts.items() if value is not None]
    lines = [f"# {target.name}", "", _introduction(policy), "", "| | |", "|---|---|", *table, "", *evaluation]
    return "\n".join([*lines, "## Use", "", *_use(policy, target), ""])


def _read(run: Path | None, name: str) -> dict[str, Any]:
    """Return the content of a file of a run, empty where there is none.

    Raises:
        ConfigurationError: If it is no mapping.
    """
    path = None if run is None else run / name
    if path is None or not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{path}: found a damaged file ({reason}), expected that of a run") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: found {type(content).__name__}, expected values by name")
    return content


def _introduction(policy: Policy) -> str:
    task = "" if policy.task is None else f" for `{policy.task}`"
    return f"A policy{task}, exported from rql_lightning."


def _prior(policy: Policy) -> str | None:
    """Return where the prior of a policy comes from, or ``None`` if it has none."""
    described = None if policy.prior is None else policy.prior.describe()
    return None if described is None else described.get("path") or described.get("name") or described.get("log_prob")


def _of_policy(policy: Policy) -> dict[str, Any]:
    observations = policy.observation_space
    return {
        "observations": f"{observations.dtype} {list(observations.shape or ())}",
        "actions": policy.action_space,
        "law": f"{type(policy).__name__}, {type(policy.family).__name__}",
        "prior": _prior(policy),
        "ω′": getattr(policy, "omega_prime", None) if policy.prior is not None else None,
        "temperature" if policy.prior is None else "α̂": policy.temperature,
    }


def _of_run(
    about: Mapping[str, Any], settings: Mapping[str, Any], config: Mapping[str, Any], origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Return facts by name; ``None`` for unknown ones."""
    fit = origin.get("stages", {}).get("fit", {})
    data = (config.get("data") or {}).get("init_args") or {}
    reward, env = settings.get("data/reward", data.get("reward")), data.get("env")
    own = f"that of {env}" if env is not None and reward is not None and has_add_on_reward(env) else None
    own = UNNAMED if own and str(env).startswith(UNNAMED_IDS) else own
    versions = ", ".join(f"{name} {version}" for name, version in fit.get("versions", {}).items())
    known = {
        "ω′": settings.get("model/omega_prime"),
        "add-on reward": None if reward == "basic" else data.get("add_on_reward") or own,
        "reward that was learnt": settings.get("data/reward"),
        "algorithm": about.get("algorithm", settings.get("model/class")),
        "frames": about.get("frames"),
        "updates": about.get("updates"),
        "seed": str(settings["seed"]) if "seed" in settings else None,
        "command": fit.get("command"),
        "versions": versions or None,
        "commit": fit.get("commit"),
    }
    return {name: value for name, value in known.items() if value is not None}


def _cell(value: Any) -> str:
    """Return a value as code, in one line that a table can hold."""
    text = f"{value:,}" if type(value) is int else f"{value:.6g}" if isinstance(value, float) else str(value)
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`"


def _evaluation(run: Path, about: Mapping[str, Any], metric: str | None) -> list[str]:
    """Return the table of prior and policy, if the run was evaluated with these weights."""
    known = summaries(run)
    evaluated, frames = known.get("policy", {}).get("frames"), about.get("frames")
    if "policy" not in known:
        return []
    if frames is not None and evaluated != frames:
        text = f"The run's last evaluation is of frame {evaluated}, and this policy of frame {frames}: it is left out."
        return ["## Evaluation", "", text, ""]
    title = "## Before and after" if "prior" in known else "## Evaluation"
    rows = [f"| {label} | {' | '.join(cells)} |" for label, cells in results_rows(list(known.values()), metric)]
    return [title, "", f"| | {' | '.join(known)} |", "|---" * (len(known) + 1) + "|", *rows, ""]


def _use(policy: Policy, target: Path) -> Iterator[str]:
    discrete = isinstance(policy.action_space, gym.spaces.Discrete)
    algorithm = "DQN" if discrete else "SAC"
    code = LOADING[target.suffix].format(name=target.name, algorithm=algorithm)
    yield from ["```python", code, "```", ""]
    if target.suffix in (".onnx", ".pt2"):
        yield (
            f"The input `observation` is float32 `[N, {', '.join(map(str, policy.observation_space.shape or ()))}]`; "
            "the outputs are the deterministic `action`, in the units of the environment, and `parameters`, "
            f"`[N, {policy.family.size}]`: {_parameters(policy)}."
        )
    elif target.suffix == ".zip" and discrete:
        temperature = boltzmann_temperature(alone(policy))
        yield (
            "The model acts greedily. The policy itself is the Boltzmann policy of its Q-values at the temperature "
            f"{temperature:.6g}: `StableBaselines3Prior({target.name!r}, temperature={temperature!r})`."
        )
    elif target.suffix == ".zip":
        yield "The critics are untrained: the model acts, but is no start for further training."
    else:
        yield "The file holds numbers and a description; no code is executed when it is loaded."
        if policy.prior is not None and policy.prior.describe()["kind"] in GIVEN:
            yield f"Its prior is code, which no file holds: `load_policy({target.name!r}, prior=…)`."


def _parameters(policy: Policy) -> str:
    if isinstance(policy.family, Categorical):
        return "the log-probabilities of the actions"
    if isinstance(policy.family, SquashedNormal):
        return "location and log-scale of a normal u, where the action is tanh(u), scaled to the bounds"
    return f"the parameters of the law {type(policy.family).__name__}"
