"""What a robomimic or robosuite file says of itself, as a mapping, and what it leaves to guess."""

from __future__ import annotations

from typing import Any

import numpy as np

from robopolicy.core.errors import ConfigError, ImportFormatError
from robopolicy.core.serial import from_tree
from robopolicy.core.specs import ActionPart, Specs
from robopolicy.datasets.importers._frames import Headers
from robopolicy.datasets.importers.mapping import ActionMap, Mapping, ObservationMap

ROBOSUITE_RATE = 20.0  # [Hz] control_freq of robosuite's own collection script
OSC_NAMES = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
XYZ, QUAT = ("x", "y", "z"), ("qx", "qy", "qz", "qw")
#: Endings of robosuite's observation names: unit of each element, and names where they are fixed.
KNOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "_eef_pos": ("m", XYZ),
    "_eef_quat": ("1", QUAT),
    "_eef_quat_site": ("1", QUAT),
    "_eef_vel_lin": ("m/s", XYZ),
    "_eef_vel_ang": ("rad/s", XYZ),
    "_joint_pos": ("rad", ()),
    "_joint_pos_cos": ("1", ()),
    "_joint_pos_sin": ("1", ()),
    "_joint_vel": ("rad/s", ()),
    "_gripper_qpos": ("m", ()),
    "_gripper_qvel": ("m/s", ()),
}


def own_specs(environment: dict[str, Any], where: str) -> Specs | None:
    """The specs that our exporter keeps in ``env_args``; None in files of others."""
    tree = _dict(environment.get("robopolicy")).get("specs")
    return None if tree is None else from_tree(Specs, tree, f"{where}, env_args.robopolicy.specs")


def mapping_of_specs(specs: Specs) -> Mapping:
    """How to read back what ``exporters/robomimic.py`` wrote."""
    observation = {
        name: ObservationMap(f"obs/{name}", (), "", spec.units, spec.names, spec.kind, spec.angles)
        for name, spec in specs.observation.items()
    }
    action = ActionMap(specs.action.parts, "actions", reached=specs.action.reached)
    return Mapping(specs.policy_rate, observation, action, robot=specs.robot)


def derive(headers: Headers, environment: dict[str, Any], where: str) -> tuple[Mapping, list[str]]:
    """A mapping from the arrays and ``env_args`` of a file, and what had to be guessed.

    Raises:
        ConfigError: the file does not say enough; a mapping is needed.
        ImportFormatError: an observation is of no kind that can be guessed.
    """
    guessed: list[str] = []
    keyword = _dict(environment.get("env_kwargs"))
    rate = _rate(keyword, environment, guessed, where)
    keys = [name for name in headers if name.startswith("obs/")]
    if not keys:
        guessed.append("observation 'state' is the simulator's state; there are no others")
    observation = {
        name.removeprefix("obs/"): _observation(name, *headers[name], guessed, where) for name in keys
    } or {"state": ObservationMap("states")}
    shape = headers["actions"][0]
    width = shape[1] if len(shape) > 1 else 1
    action = ActionMap((_action_part(keyword, width, guessed, where),), "actions")
    return Mapping(rate, observation, action), guessed


def _rate(keyword: dict[str, Any], environment: dict[str, Any], guessed: list[str], where: str) -> float:
    rate = keyword.get("control_freq")
    if isinstance(rate, (int, float)) and not isinstance(rate, bool) and rate > 0:
        return float(rate)
    if environment.get("type") != 1 and "controller_configs" not in keyword:
        raise ConfigError(f"{where}: env_args names no control_freq, so give --mapping with a rate [Hz]")
    guessed.append(f"rate: {ROBOSUITE_RATE} Hz, robosuite's default; env_args names no control_freq")
    return ROBOSUITE_RATE


def _observation(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any], guessed: list[str], where: str
) -> ObservationMap:
    frame = shape[1:]
    if dtype == np.uint8 and len(frame) == 3:
        if frame[-1] != 3:
            raise ImportFormatError(
                f"{where}: {name} is uint8 {frame}, not (h, w, 3); leave it out, --without {name}"
            )
        return ObservationMap(name, kind="image")
    if len(frame) == 3 and frame[-1] == 1 and (name.endswith("depth") or dtype == np.uint16):
        guessed.append(f"{name} is depth in {'metres' if dtype.kind == 'f' else 'millimetres'}")
        return ObservationMap(name, kind="depth", units=("mm",))
    width = frame[-1] if frame else 1
    unit, names = next((KNOWN[end] for end in KNOWN if name.endswith(end)), ("", ()))
    guessed.append(f"{name}: unit {unit or 'unknown'}")
    fits = names if len(names) == width else ()
    return ObservationMap(name, units=(unit,) * width if unit else (), names=fits)


def _action_part(keyword: dict[str, Any], width: int, guessed: list[str], where: str) -> ActionPart:
    arms = _arm_controllers(keyword.get("controller_configs"))
    if any(arm.get("control_delta") is False or arm.get("input_type") == "absolute" for arm in arms):
        raise ConfigError(
            f"{where}: its controller takes absolute goals, so give --mapping to say what they are"
        )
    kinds = {str(arm.get("type")) for arm in arms}
    if kinds == {"OSC_POSE"} and width == len(OSC_NAMES) * len(arms):
        names = [n if len(arms) == 1 else f"robot{i}_{n}" for i in range(len(arms)) for n in OSC_NAMES]
    else:
        names = [f"a{i}" for i in range(width)]
    known = " and ".join(sorted(kinds)) or "unknown"
    guessed.append(f"actions: inputs in -1..1 of the controller ({known}), named {', '.join(names)}")
    return ActionPart("normalised", tuple(names))


def _arm_controllers(tree: Any) -> list[dict[str, Any]]:
    """Settings of the arms' controllers; robosuite 1.5 nests them under body parts."""
    if isinstance(tree, list):
        return [arm for part in tree for arm in _arm_controllers(part)]
    tree = _dict(tree)
    parts = _dict(tree.get("body_parts"))
    if not parts:
        return [tree] if tree else []
    parts = _dict(parts.get("arms")) or parts
    return [part for side, part in parts.items() if side in ("right", "left") and isinstance(part, dict)]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
