"""Policies as models of Stable-Baselines3: actors of SAC, and Q-networks of DQN."""

from __future__ import annotations

import io
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning.errors import ConfigurationError, UnsupportedFormatError
from rql_lightning.export.laws import alone, check_same_law
from rql_lightning.export.layers import Layers, added, after_encoder, centred, layers_of, scaled, widths, with_floor
from rql_lightning.policies import Encoder, NetworkPolicy, Policy, SoftQPolicy, SquashedNormal
from rql_lightning.policies.families import LOG_SCALE_RANGE
from rql_lightning.priors import StableBaselines3Prior


def model_zip(policy: Policy) -> bytes:
    """Return the zip of a model of Stable-Baselines3 with the law of a policy.

    A policy over continuous actions becomes a SAC model with the same actor and the policy's temperature as entropy
    coefficient (0 if it is unknown). A policy over discrete actions becomes a DQN model whose Q-values are such that
    the Boltzmann policy at :func:`boltzmann_temperature` is the policy. The critics of SAC are untrained.

    Raises:
        UnsupportedFormatError: If Stable-Baselines3 has no such network; names the part that it lacks.
        ConfigurationError: If Stable-Baselines3 is not installed.
    """
    policy = alone(policy)
    algorithms = _library()
    _check_observations(policy)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)  # of weights that the policy does not determine
        if isinstance(policy.action_space, gym.spaces.Discrete):
            model = _value_model(algorithms.DQN, policy)
        else:
            model = _actor_model(algorithms.SAC, policy)
    buffer = io.BytesIO()
    model.save(buffer)
    return buffer.getvalue()


def boltzmann_temperature(policy: Policy) -> float:
    """Return the temperature at which the exported Q-values of a policy over discrete actions are its law."""
    return policy.alpha_hat if isinstance(policy, SoftQPolicy) else 1.0


def _library() -> Any:
    try:
        import stable_baselines3
    except ImportError as error:
        expected = "pip install 'rql-lightning[stable-baselines3]', which brings it"
        raise ConfigurationError(
            f"a model of Stable-Baselines3 (.zip): found no library stable_baselines3, expected {expected}"
        ) from error
    return stable_baselines3


def _check_observations(policy: Policy) -> None:
    space = policy.observation_space
    if space.dtype == "uint8" and len(space.shape or ()) == 3:
        raise _lacks(f"images as observations ({space})", "vectors: it divides images by 255")


def _lacks(found: str, expected: str) -> UnsupportedFormatError:
    return UnsupportedFormatError(f"a model of Stable-Baselines3 (.zip): found {found}, expected {expected}")


def _value_model(algorithm: Any, policy: Policy) -> Any:
    layers, temperature = _values(policy), boltzmann_temperature(policy)
    model = _untrained(algorithm, policy, widths(layers)[:-1])
    for network in (model.q_net, model.q_net_target):
        _fill(network.q_net, layers)

    def law(observation: Tensor) -> tuple[Tensor, Tensor]:
        q = model.q_net(observation)
        return q.argmax(dim=-1), (q / temperature).log_softmax(dim=-1)

    check_same_law(policy, law, "a model of DQN (.zip)")
    return model


def _actor_model(algorithm: Any, policy: Policy) -> Any:
    if not isinstance(policy, NetworkPolicy) or type(policy.family) is not SquashedNormal:
        found = f"a {type(policy).__name__} of the law {type(policy.family).__name__}"
        raise _lacks(found, "an actor of the law SquashedNormal, which is SAC's")
    layers = _of_observations(policy.encoder, policy.network)
    # SAC bounds the log-scale from below by less than we do.
    hidden, location, log_scale = with_floor(layers, LOG_SCALE_RANGE[0])
    sizes = {"pi": widths(hidden), "qf": policy.hidden_sizes}
    settings = {"ent_coef": float(policy.temperature or 0.0), "target_entropy": -float(len(location[1]))}
    model = _untrained(algorithm, policy, sizes, **settings)
    _fill(model.actor.latent_pi, hidden)
    _fill(model.actor.mu, [location])
    _fill(model.actor.log_std, [log_scale])

    def law(observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std, _ = model.actor.get_action_dist_params(observation)
        return policy.mode(torch.cat([mean, log_std], dim=-1)), torch.cat([mean, log_std], dim=-1)

    check_same_law(policy, law, "a model of SAC (.zip)")
    return model


def _untrained(algorithm: Any, policy: Policy, net_arch: Any, **settings: Any) -> Any:
    """Create a model for spaces instead of an environment, as the loader of Stable-Baselines3 does."""
    settings |= {"policy_kwargs": {"net_arch": net_arch}, "device": "cpu", "_init_setup_model": False}
    model = algorithm("MlpPolicy", None, **settings)
    model.observation_space, model.action_space, model.n_envs = policy.observation_space, policy.action_space, 1
    model._setup_model()
    return model


def _fill(network: nn.Module, layers: Layers) -> None:
    linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
    for part, (weight, bias) in zip(linear, layers, strict=True):
        part.weight.copy_(weight)
        part.bias.copy_(bias)


def _values(policy: Policy) -> Layers:
    """Return layers of Q-values whose Boltzmann policy at :func:`boltzmann_temperature` is the policy.

    Of a customised policy they are Q_R + ω′ log π + a number per state, which no policy of theirs depends on. If log π
    is a network's logits up to such a number, the sum is one network.

    Raises:
        UnsupportedFormatError: If the policy or its prior is no such network.
    """
    if isinstance(policy, NetworkPolicy):
        return _of_observations(policy.encoder, policy.network)
    if isinstance(policy, StableBaselines3Prior):
        return _values_of_model(policy)
    if not isinstance(policy, SoftQPolicy):
        raise _lacks(f"a {type(policy).__name__}", "a network of Q-values or logits")
    own = _of_observations(policy.encoder, policy.q_network)
    if policy.prior is None or policy.omega_prime == 0:
        return own
    prior = alone(policy.prior)
    logits = scaled(centred(_values(prior)), policy.omega_prime / boltzmann_temperature(prior))
    return added(own, logits)


def _values_of_model(prior: StableBaselines3Prior) -> Layers:
    """Return layers of the logits of a model of Stable-Baselines3."""
    if prior.normalization is not None:
        raise _lacks(
            f"the normalised observations of {prior.path}, which are clipped", "a network of observations as they are"
        )
    network: Any = prior.network
    *hidden, (weight, bias) = _layers(nn.Sequential(network.hidden, network.head))
    mean_weight, mean_bias = (each.unflatten(0, (network.quantiles, -1)).mean(dim=0) for each in (weight, bias))
    return scaled([*hidden, (mean_weight, mean_bias)], 1.0 / network.temperature)


def _layers(network: nn.Module) -> Layers:
    layers = layers_of(network)
    if layers is None:
        kinds = ", ".join(dict.fromkeys(type(part).__name__ for part in network.modules()))
        raise _lacks(f"a network of {kinds}", "a chain of linear layers with ReLUs in between")
    return layers


def _of_observations(encoder: Encoder, network: nn.Module) -> Layers:
    if encoder.running is not None:
        raise _lacks("normalised observations, which are clipped", "a network of observations as they are")
    if encoder.goal_scales:
        raise _lacks("differences to a goal (goal_scales) as inputs, on a scale that is not linear", "linear scales")
    return after_encoder(encoder, _layers(network))
