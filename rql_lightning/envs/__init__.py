"""Customised environments: importing this registers the ids ``rql_lightning/<Task>-v0`` with Gymnasium."""

from rql_lightning.envs.cartpole import CARTPOLE
from rql_lightning.envs.customization import (
    Customization,
    CustomizationWrapper,
    Metric,
    VectorCustomizationWrapper,
)
from rql_lightning.envs.highway import HIGHWAY
from rql_lightning.envs.mountain_car import MOUNTAIN_CAR
from rql_lightning.envs.parking import PARKING
from rql_lightning.envs.registration import make_vector_env, register, register_task

__all__ = [
    "Customization",
    "CustomizationWrapper",
    "Metric",
    "VectorCustomizationWrapper",
    "make_vector_env",
    "register_task",
]

register_task("rql_lightning/CartPole-v0", "CartPole-v1", CARTPOLE)
register_task("rql_lightning/MountainCarContinuous-v0", "MountainCarContinuous-v0", MOUNTAIN_CAR)
register("rql_lightning/Highway-v0", HIGHWAY)
register("rql_lightning/Parking-v0", PARKING)
