"""highway-env's Highway and Parking as compiled vector environments, held to highway-env step by step."""

from rql_lightning.envs.simulation.highway_vector import HighwayVectorEnv
from rql_lightning.envs.simulation.parking_vector import ParkingVectorEnv
from rql_lightning.envs.simulation.vector import CompiledVectorEnv

__all__ = ["CompiledVectorEnv", "HighwayVectorEnv", "ParkingVectorEnv"]
