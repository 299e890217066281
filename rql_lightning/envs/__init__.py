"""Customised environments: importing this registers the ids ``rql_lightning/<Task>-v0`` with Gymnasium."""

from rql_lightning.envs import cartpole, highway, mountain_car, parking
from rql_lightning.envs.customization import Customization, Metric
from rql_lightning.envs.registration import make_vector_env, register, register_task
from rql_lightning.envs.wrappers import CustomizationWrapper, VectorCustomizationWrapper

__all__ = [
    "Customization",
    "CustomizationWrapper",
    "Metric",
    "VectorCustomizationWrapper",
    "make_vector_env",
    "register_task",
]

for _id, _module in (
    ("rql_lightning/CartPole-v0", cartpole),
    ("rql_lightning/MountainCarContinuous-v0", mountain_car),
    ("rql_lightning/Highway-v0", highway),
    ("rql_lightning/Parking-v0", parking),
):
    register(_id, _module.TASK, module=_module.__name__)
