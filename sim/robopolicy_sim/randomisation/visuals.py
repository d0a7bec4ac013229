"""How conditions of the looks change a model: lights, colours, cameras."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from robopolicy_sim.randomisation.targets import Ids

_TARGETED = (int(mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY), int(mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODYCOM))


class Visuals:
    """Puts one condition after the other into a model that is as it was compiled.

    Args:
        scratch: of the model; its kinematics are computed here at the default pose.
    """

    def __init__(self, model: mujoco.MjModel, scratch: mujoco.MjData) -> None:
        self._model, self._scratch = model, scratch
        self.effects: dict[str, Callable[[Ids, float], None]] = {
            "light_brightness": self._light_brightness,
            "light_warmth": self._light_warmth,
            "light_azimuth": self._light_azimuth,
            "light_tilt": self._light_tilt,
            "ambient": self._ambient,
            "hue": lambda ids, turns: self._recolour(ids, (turns, 1.0, 1.0)),
            "saturation": lambda ids, factor: self._recolour(ids, (0.0, factor, 1.0)),
            "brightness": lambda ids, factor: self._recolour(ids, (0.0, 1.0, factor)),
            "camera_fovy": self._camera_fovy,
        }
        for axis, name in enumerate("xyz"):
            self.effects[f"light_{name}"] = _shift(model.light_pos, axis)
            self.effects[f"camera_{name}"] = _shift(model.cam_pos, axis)
        for axis, name in enumerate(("pitch", "yaw", "roll")):  # about the picture's x, y, and the view
            self.effects[f"camera_{name}"] = self._turn_cameras(np.eye(3)[axis])

    def _light_brightness(self, lights: Ids, factor: float) -> None:
        self._model.light_diffuse[lights] *= factor

    def _light_warmth(self, lights: Ids, warmth: float) -> None:
        self._model.light_diffuse[lights] *= (1 + warmth, 1.0, 1 - warmth)

    def _light_azimuth(self, lights: Ids, angle: float) -> None:
        turn = Rotation.from_rotvec([0.0, 0.0, angle]).as_matrix()
        self._model.light_dir[lights] = self._model.light_dir[lights] @ turn.T

    def _light_tilt(self, lights: Ids, angle: float) -> None:
        """Towards the vertical if positive; a vertical light leans over about x."""
        for light in lights:
            direction = self._model.light_dir[light]
            axis = np.cross(direction, (0.0, 0.0, -1.0))
            length = float(np.linalg.norm(axis))
            axis = axis / length if length > 1e-9 else np.array([1.0, 0.0, 0.0])
            direction[:] = Rotation.from_rotvec(angle * axis).apply(direction)

    def _ambient(self, _: Ids, factor: float) -> None:
        self._model.vis.headlight.ambient *= factor

    def _recolour(self, materials: Ids, change: tuple[float, float, float]) -> None:
        """Turn the hue [turns], scale saturation and brightness."""
        hue_turn, saturation_factor, brightness_factor = change
        for material in materials:
            colour = self._model.mat_rgba[material]
            hue, saturation, brightness = colorsys.rgb_to_hsv(*(float(c) for c in colour[:3]))
            saturation = min(saturation * saturation_factor, 1.0)
            brightness = min(brightness * brightness_factor, 1.0)
            colour[:3] = colorsys.hsv_to_rgb((hue + hue_turn) % 1.0, saturation, brightness)

    def _camera_fovy(self, cameras: Ids, added: float) -> None:
        self._model.cam_fovy[cameras] += np.degrees(added)

    def _turn_cameras(self, axis: NDArray[np.float64]) -> Callable[[Ids, float], None]:
        def turn(cameras: Ids, angle: float) -> None:
            half = np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) * axis])
            for camera in cameras:
                self._unlock(int(camera))
                turned = np.empty(4)
                mujoco.mju_mulQuat(turned, self._model.cam_quat[camera], half)
                self._model.cam_quat[camera] = turned

        return turn

    def _unlock(self, camera: int) -> None:
        """Let a camera that is aimed at a body keep its aim, so that it can be turned away from it."""
        model, scratch = self._model, self._scratch
        if int(model.cam_mode[camera]) not in _TARGETED or model.cam_bodyid[camera] != 0:
            return
        mujoco.mj_kinematics(model, scratch)
        mujoco.mj_camlight(model, scratch)
        aimed = np.empty(4)
        mujoco.mju_mat2Quat(aimed, scratch.cam_xmat[camera])
        model.cam_quat[camera] = aimed
        model.cam_mode[camera] = int(mujoco.mjtCamLight.mjCAMLIGHT_FIXED)


def _shift(position: NDArray[np.float64], axis: int) -> Callable[[Ids, float], None]:
    def shift(ids: Ids, added: float) -> None:
        position[ids, axis] += added

    return shift
