"""What differs between episodes on purpose: dynamics, looks, delays; and what they are drawn from."""

from robopolicy_sim.randomisation.config import Randomisation
from robopolicy_sim.randomisation.latency import Latency
from robopolicy_sim.randomisation.randomiser import Conditions, Randomiser
from robopolicy_sim.randomisation.textures import with_textures

__all__ = ["Conditions", "Latency", "Randomisation", "Randomiser", "with_textures"]
