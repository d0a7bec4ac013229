"""Specs of an arm, candidates and situations to score, shared by the tests of the scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from robopolicy import robots
from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import Context, Prefix, keyed_rng
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.runtime.reranking.scores import score_module
from robopolicy.runtime.reranking.situation import Score, Situation

FR3 = robots.load("fr3")
HOME = np.array([*FR3.home, 0.04])
HORIZONS = Horizons(3, 12, 6)
POSE = ("x", "y", "z", "r0", "r1", "r2", "r3", "r4", "r5")
GRIP = ActionPart("gripper_opening", (FR3.gripper.name,))
ARMS = {
    "joint_position": ActionPart("joint_position", FR3.joint_names),
    "joint_delta": ActionPart("joint_delta", FR3.joint_names, "relative"),
    "relative_joints": ActionPart("joint_position", FR3.joint_names, "relative"),
    "ee_pose": ActionPart("ee_pose", POSE, frame=FR3.base_frame),
    "ee_delta": ActionPart("ee_delta", POSE, "relative", FR3.base_frame),
}
STATES = {
    "joint_position": ArraySpec((7,), units=("rad",) * 7, names=FR3.joint_names),
    "cube_position": ArraySpec((3,), units=("m",) * 3, names=("x", "y", "z")),
    "force": ArraySpec((2,), units=("N", "N")),
}


def specs_of(
    *parts: ActionPart,
    horizons: Horizons = HORIZONS,
    robot: str = "fr3",
    reached: str = "start",
    rate: float = 10.0,
) -> PolicySpecs:
    """By default the FR3 in joint positions with its gripper."""
    action = ActionSpec(parts or (ARMS["joint_position"], GRIP), reached)
    return PolicySpecs(Specs(dict(STATES), action, rate, robot), horizons)


def planar(names: tuple[str, ...] = ("x",), **changes: Any) -> PolicySpecs:
    """A point in pixels, which no robot knows."""
    return specs_of(ActionPart("planar_position", names), robot="", **changes)


def scored(name: str, specs: PolicySpecs, robot: Any = None, **options: Any) -> Score:
    module = score_module(name)
    score: Score = module.build(module.Config(**options), specs, robot=robot, critic=None)
    assert score.name == name
    return score


def chunks(specs: PolicySpecs, batch: int = 2, n: int = 5, seed: int = 0, spread: float = 0.1) -> np.ndarray:
    """Random candidates, around the FR3's home where they have its dimensions."""
    dim = specs.specs.action.dim
    centre = HOME if dim == len(HOME) else np.zeros(dim)
    noise = keyed_rng(seed).normal(size=(batch, n, *specs.chunk_shape)) * spread
    return (centre + noise).astype(np.float32)


def situation(
    specs: PolicySpecs, batch: int = 2, past: Any = None, prefix: Prefix | None = None, **states: Any
) -> Situation:
    """Standing at home; ``states`` replace what is observed, each broadcast to its shape."""
    horizon = specs.horizons.observation
    seen = {"joint_position": HOME[:7], "cube_position": 0.0, "force": 0.0, **states}
    observation = {
        name: np.broadcast_to(np.asarray(seen[name], np.float32), (batch, horizon, *spec.shape)).copy()
        for name, spec in specs.specs.observation.items()
    }
    if past is not None:
        shape = (batch, specs.horizons.action_start, specs.specs.action.dim)
        past = np.broadcast_to(np.asarray(past, np.float32), shape).copy()
    rng = [keyed_rng(row) for row in range(batch)]
    return Situation(specs, observation, rng, Context(prefix=prefix, past=past))
