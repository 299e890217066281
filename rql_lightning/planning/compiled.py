"""The whole search in compiled code, for the compiled Highway with its own add-on reward and a compiled prior."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from rql_lightning.compilation import entry_point
from rql_lightning.envs import highway as task
from rql_lightning.envs.customization import StepFunction
from rql_lightning.envs.simulation import HighwayVectorEnv, highway
from rql_lightning.envs.simulation.highway import Scene
from rql_lightning.envs.simulation.vehicles import VEHICLE
from rql_lightning.planning.candidates import CandidateActions, DiscreteActions
from rql_lightning.planning.dynamics import Dynamics
from rql_lightning.planning.network import Network, log_probabilities
from rql_lightning.planning.search import Nodes, Roots, Rules, advance_one, link
from rql_lightning.planning.simulator import SimulatorDynamics
from rql_lightning.planning.tree import Tree

Search = Callable[[Tree, Rules], None]


def compiled_search(dynamics: Dynamics, candidates: CandidateActions) -> Search | None:
    """Return the compiled search of a model and a prior, or ``None`` if they have none.

    It does what the search over :meth:`~rql_lightning.planning.dynamics.Dynamics.step` does, bit for bit.

    Args:
        dynamics: Attached model.
        candidates: Candidate actions, with the prior.
    """
    if type(dynamics) is not SimulatorDynamics or not isinstance(dynamics.simulator, HighwayVectorEnv):
        return None
    weights = _weights(dynamics.reward.function)
    if weights is None or dynamics.simulator.config["offroad_terminal"]:
        return None
    if not isinstance(candidates, DiscreteActions) or candidates.network is None:
        return None
    model = (*dynamics.simulator.compiled_settings, *weights, candidates.network, candidates.omega_prime)
    return partial(_search, model=model)


def _weights(reward: StepFunction) -> tuple[float, float] | None:
    """Return the weight of the lane and the penalty of a crash in an add-on reward of Highway, ``None`` in others."""
    if reward is task.careful_add_on_reward:
        return task.RIGHT_LANE_REWARD, task.CRASH_PENALTY
    if isinstance(reward, partial) and reward.func is task.add_on_reward and not reward.args:
        return (float(reward.keywords["right_lane"]), 0.0) if list(reward.keywords) == ["right_lane"] else None
    return None


def _search(tree: Tree, rules: Rules, model: tuple[Any, ...]) -> None:
    """Run all simulations; whenever the nodes are used up, the compiled code returns, and goes on with more of them."""
    finished = False
    while not finished:
        tree.make_room(len(tree.roots.root))
        states = tree.states
        vehicles = states["vehicles"].view(VEHICLE)[..., 0]
        arrays = (vehicles, states["times"], states["steps"], states["observation"])
        tree.size, finished = search(tree.nodes, tree.roots, rules, tree.size, *arrays, *model)


@njit
def _prior(nodes: Nodes, node: int, network: Network, omega_prime: float, observation: np.ndarray) -> None:
    """Write the prior's log-probabilities at a node."""
    log_probabilities(network, observation, nodes.log_prior[node])
    for action in range(nodes.log_prior.shape[1]):
        nodes.weighted_log_prior[node, action] = (
            0.0 if omega_prime == 0 else omega_prime * nodes.log_prior[node, action]
        )


def _search_highway(
    nodes: Nodes,
    roots: Roots,
    rules: Rules,
    size: int,
    vehicles: np.ndarray,
    times: np.ndarray,
    steps: np.ndarray,
    observations: np.ndarray,
    scene: Scene,
    target_speeds: np.ndarray,
    see_behind: bool,
    right_lane: float,
    crash_penalty: float,
    network: Network,
    omega_prime: float,
) -> tuple[int, bool]:
    terms = np.empty(len(highway.REWARDS))
    for r in range(len(roots.root)):
        while size < len(times):
            if not advance_one(nodes, roots, rules, r):
                break
            parent, new = roots.node[r], size
            size += 1
            for index in range(vehicles.shape[1]):
                vehicles[new, index] = vehicles[parent, index]
            highway.step_one(vehicles[new], roots.action[r], scene, target_speeds)
            times[new], steps[new] = times[parent] + scene.step_seconds, steps[parent] + 1
            highway.report_one(vehicles[new], scene, see_behind, observations[new], terms)
            nodes.reward[new] = right_lane * terms[1] * terms[3] - crash_penalty * terms[0]
            nodes.terminated[new] = terms[0] > 0
            link(nodes, roots, rules, r, new, observations)
            if roots.depth[r] + 1 < rules.horizon and not nodes.terminated[new]:
                _prior(nodes, new, network, omega_prime, observations[new])
        if size == len(times):
            return size, False
    return size, True


search = entry_point(_search_highway)
