"""Fits the capsules of a robot file to the collision geometry of its MJCF.

python -m robopolicy_sim.capsules fr3 prints the lines for ``robopolicy/robots/fr3.py`` and how often each
pair of parts overlaps over random postures, from which ``touching`` is judged.

Method: each collision geom is a set of balls: a capsule's two ends, or the corners, radius zero, of a box
or of the 16-sided prism around a cylinder. Along each of the geom's axes, through the middle of its extent,
the smallest capsule around them is found over 200 radii. The fingers are taken together, closed and open,
across the hand. Of one part, two geoms get one capsule where that is less than a tenth larger than two.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import segment_distance
from robopolicy.core.kinematics import Kinematics
from robopolicy.core.robot import Capsule, Robot
from robopolicy_sim import robots
from robopolicy_sim.robots import SimulatedRobot

Float = NDArray[np.float64]
_SIDES = 16  # of the prism around a cylinder
_RADII = 200  # tried
_JOIN = 1.1  # two capsules may grow by a tenth when they are made one
_SLACK = 1e-6  # [m] rounding up, so that corners are strictly inside
_POSTURES = 4_000


@dataclass(frozen=True)
class Balls:
    """(n, 3) centres in a joint's frame [m], (n,) radii, and the directions (3, 3) worth trying, in rows."""

    centre: Float
    radius: Float
    axes: Float

    def joined(self, other: Balls) -> Balls:
        return Balls(
            np.vstack([self.centre, other.centre]),
            np.concatenate([self.radius, other.radius]),
            np.vstack([self.axes, other.axes]),
        )


def geom_balls(model: mujoco.MjModel, geom: int) -> Balls:
    """A geom's corners in its body's frame; ValueError where its type is none of the arms'."""
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    matrix, size = rotation.reshape(3, 3), model.geom_size[geom]
    kind, radius = int(model.geom_type[geom]), 0.0
    if kind == int(mujoco.mjtGeom.mjGEOM_BOX):
        local = np.array(list(itertools.product((-1, 1), repeat=3))) * size
    elif kind == int(mujoco.mjtGeom.mjGEOM_CYLINDER):
        angle = 2 * np.pi * np.arange(_SIDES) / _SIDES
        outer = size[0] / np.cos(np.pi / _SIDES)
        ring = outer * np.column_stack([np.cos(angle), np.sin(angle)])
        local = np.vstack([np.column_stack([ring, np.full(_SIDES, z)]) for z in (-size[1], size[1])])
    elif kind == int(mujoco.mjtGeom.mjGEOM_CAPSULE):
        local, radius = np.array([[0, 0, -size[1]], [0, 0, size[1]]]), float(size[0])
    else:
        raise ValueError(f"geom {geom} is of type {kind}, not a box, cylinder or capsule")
    return Balls(model.geom_pos[geom] + local @ matrix.T, np.full(len(local), radius), matrix.T)


def fit(balls: Balls) -> tuple[Float, Float, float]:
    """Start, end (3,) and radius of the smallest capsule found around balls."""
    best: tuple[float, Float, Float, float] | None = None
    for axis in balls.axes:
        along = balls.centre @ axis
        flat = balls.centre - along[:, None] * axis
        low, high = np.min(flat - balls.radius[:, None], axis=0), np.max(flat + balls.radius[:, None], axis=0)
        middle = (low + high) / 2
        middle = middle - (middle @ axis) * axis
        away = np.linalg.norm(flat - middle, axis=1)
        least, half = float(np.max(away + balls.radius)), float(np.ptp(along)) / 2
        for radius in least + np.linspace(0.0, half + 1e-9, _RADII):
            spare = np.sqrt(np.maximum((radius - balls.radius) ** 2 - away**2, 0.0))
            end, start = float(np.max(along - spare)), float(np.min(along + spare))
            if end < start:
                start = end = (start + end) / 2
            volume = np.pi * radius**2 * (end - start) + 4 / 3 * np.pi * radius**3
            if best is None or volume < best[0] - 1e-12:
                best = (volume, middle + start * axis, middle + end * axis, float(radius) + _SLACK)
    assert best is not None
    return best[1:]


def part_balls(arm: SimulatedRobot) -> dict[tuple[str, str, bool], list[Balls]]:
    """Balls of every collision geom by (part, joint, whether the fingers'), in that joint's frame."""
    model = arm.spec().compile()
    data = mujoco.MjData(model)
    robot = arm.robot
    joint_of = {int(model.jnt_bodyid[model.joint(n).id]): n for n in robot.joint_names}
    fingers = {int(model.jnt_bodyid[model.joint(n).id]) for n in arm.finger_joints}
    found: dict[tuple[str, str, bool], list[Balls]] = {}
    for geom in np.flatnonzero(model.geom_contype):
        body = own = int(model.geom_bodyid[geom])
        while own and own not in joint_of:
            own = int(model.body_parentid[own])
        tool = body in fingers
        part = "fingers" if tool else model.body(body).name.removeprefix(f"{robot.name}_")
        key = (part, joint_of.get(own, ""), tool)
        balls = geom_balls(model, int(geom))
        for opening in (0.0, robot.gripper.opening_max) if tool else (0.0,):
            for name in arm.finger_joints:
                data.joint(name).qpos[0] = opening / 2
            mujoco.mj_kinematics(model, data)
            found.setdefault(key, []).append(_moved(data, balls, body, own))
    return {key: [_all(group)] if key[2] else group for key, group in found.items()}


def _moved(data: mujoco.MjData, balls: Balls, body: int, frame: int) -> Balls:
    to_world, to_frame = data.xmat[body].reshape(3, 3), data.xmat[frame].reshape(3, 3).T
    centre = (balls.centre @ to_world.T + data.xpos[body] - data.xpos[frame]) @ to_frame.T
    return Balls(centre, balls.radius, balls.axes @ to_world.T @ to_frame.T)


def _all(group: list[Balls]) -> Balls:
    whole = group[0]
    for other in group[1:]:
        whole = whole.joined(other)
    wide = int(np.argmax([np.ptp(whole.centre @ axis) for axis in whole.axes]))
    return Balls(whole.centre, whole.radius, whole.axes[wide : wide + 1])


def fitted(arm: SimulatedRobot) -> list[Capsule]:
    """The capsules of every part."""
    result = []
    for (part, joint, tool), group in part_balls(arm).items():
        sets = list(group)
        while (pair := _joinable(sets)) is not None:
            i, j = pair
            sets = [s for k, s in enumerate(sets) if k not in pair] + [sets[i].joined(sets[j])]
        for balls in sets:
            start, end, radius = fit(balls)
            result.append(Capsule(part, joint, _rounded(start), _rounded(end), _up(radius), tool))
    return result


def _joinable(sets: list[Balls]) -> tuple[int, int] | None:
    for i, j in itertools.combinations(range(len(sets)), 2):
        apart = _volume(fit(sets[i])) + _volume(fit(sets[j]))
        if _volume(fit(sets[i].joined(sets[j]))) <= _JOIN * apart:
            return i, j
    return None


def _volume(capsule: tuple[Float, Float, float]) -> float:
    start, end, radius = capsule
    return float(np.pi * radius**2 * (np.linalg.norm(end - start) + 4 / 3 * radius))


def _rounded(point: Float) -> tuple[float, float, float]:
    x, y, z = (round(float(v), 4) + 0.0 for v in point)
    return x, y, z


def _up(radius: float) -> float:
    return float(np.ceil(radius * 1e4 + 1) / 1e4)  # covers the rounding of the ends too


def overlaps(robot: Robot, clearance: float, rng: np.random.Generator) -> dict[tuple[str, str], float]:
    """Share of random postures in which two parts come within ``clearance`` [m], where there are any."""
    kinematics, limits = Kinematics(robot), robot.limits
    postures = rng.uniform(limits.lower[:-1], limits.upper[:-1], (_POSTURES, len(robot.joints)))
    ends = kinematics.capsules(kinematics.frames(postures))
    near: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for i, j in itertools.combinations(range(len(robot.capsules)), 2):
        first, second = robot.capsules[i], robot.capsules[j]
        if first.part == second.part:
            continue
        gap = segment_distance(ends[:, i], ends[:, j]) - first.radius - second.radius
        key = (first.part, second.part)
        near[key] = near.get(key, np.zeros(_POSTURES, dtype=np.bool_)) | (gap < clearance)
    return {key: float(np.mean(hits)) for key, hits in near.items() if hits.any()}


def main() -> None:
    import dataclasses

    arm = robots.load(sys.argv[1])
    capsules = fitted(arm)
    for c in capsules:
        tool = ", tool=True" if c.tool else ""
        print(f'    Capsule("{c.part}", "{c.joint}", {c.start}, {c.end}, {c.radius}{tool}),')
    robot = dataclasses.replace(arm.robot, capsules=tuple(capsules), touching=())
    shares = overlaps(robot, 0.01, np.random.default_rng(0))
    for pair, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"{share:7.1%}  {pair}")


if __name__ == "__main__":
    main()
