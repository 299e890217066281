"""Customised environments: importing this registers the ids ``rql_lightning/<Task>-v0`` with Gymnasium."""

from rql_lightning.envs import cartpole, highway, mountain_car, mujoco, parking
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

for _id, _task, _suffix in (
    ("rql_lightning/HalfCheetah-v0", mujoco.HALF_CHEETAH_TASK, "_half_cheetah"),
    ("rql_lightning/Hopper-v0", mujoco.HOPPER_TASK, "_hopper"),
    ("rql_lightning/Swimmer-v0", mujoco.SWIMMER_TASK, "_swimmer"),
    ("rql_lightning/Ant-v0", mujoco.ANT_TASK, "_ant"),
):
    register(_id, _task, module=mujoco.__name__, suffix=_suffix)
