"""What must hold before a real-time run: its parts fit one another, and nothing collects garbage."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.plant import Plant
from robopolicy.core.robot import Robot
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.inference.client import InferenceClient
from robopolicy.runtime.safety.filter import SafetyFilter
from robopolicy.runtime.scheduling.scheduler import ChunkScheduler


def check_plant(plant: Plant, specs: PolicySpecs) -> None:
    """Raise SpecError unless the plant gives what the policy sees and takes what it commands."""
    for name, spec in specs.specs.observation.items():
        if plant.specs.observation.get(name) != spec:
            found = plant.specs.observation.get(name)
            raise SpecError(f"the policy sees {name!r} as {spec}, the plant gives {found}")
    # Not ``reached``: it times the policy's steps, and a plant takes a command each control tick.
    wanted, taken = specs.specs.action.parts, plant.specs.action.parts
    if wanted != taken:
        raise SpecError(f"the policy commands {wanted}, the plant takes {taken}")
    if plant.control_rate < specs.specs.policy_rate:
        raise SpecError(
            f"control rate {plant.control_rate} Hz is below the policy rate {specs.specs.policy_rate} Hz"
        )


def check_names(specs: PolicySpecs, robot: Robot) -> None:
    """Raise SpecError unless the policy commands the robot's joints, and its gripper, in the robot's order:
    dimensions and limits are matched by place."""
    wanted, known = specs.specs.action.names, (*(joint.name for joint in robot.joints), robot.gripper.name)
    if wanted != known:
        raise SpecError(f"the policy commands {wanted} in this order, {robot.name} takes {known}")


def check_client(client: InferenceClient, num_candidates: int) -> None:
    """Raise ConfigError when a client that says how many candidates it has room for has too little, or one
    that chooses among candidates was made for another number of them."""
    most, among = (getattr(client, name, None) for name in ("max_candidates", "num_candidates"))
    if most is not None and num_candidates > most:
        raise ConfigError(f"num_candidates must be 1..{most}, got {num_candidates}")
    if among is not None and num_candidates != among:
        raise ConfigError(f"the client chooses among {among} candidates, num_candidates is {num_candidates}")


def check_instruction(specs: PolicySpecs, instruction: str) -> None:
    """Raise SpecError when a policy that follows instructions would get none: before anything moves."""
    if specs.instruction_dim and not instruction.strip():
        raise SpecError("this policy follows instructions and got none; say what to do: --instruction TEXT")


def check_timing(plant: Plant, specs: PolicySpecs, scheduler: ChunkScheduler, safety: SafetyFilter) -> None:
    """Raise ConfigError unless scheduler and safety filter were made for this policy and this rate."""
    if not math.isclose(safety.control_rate, plant.control_rate, rel_tol=1e-6):
        raise ConfigError(
            f"the safety filter was made for {safety.control_rate} Hz, the plant takes commands at "
            f"{plant.control_rate} Hz: its velocity limits would be wrong by their ratio"
        )
    if scheduler.policy_specs != specs:
        raise ConfigError(f"the scheduler was made for {scheduler.policy_specs}, the policy has {specs}")


@contextmanager
def garbage_collection_off() -> Iterator[None]:
    """A full collection takes longer than a tick."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
