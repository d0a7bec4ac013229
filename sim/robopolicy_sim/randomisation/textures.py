"""Surfaces drawn anew for an episode: checkers, noise, gradients.

A compiled model cannot get further textures, so some empty ones are put into the robot's model before it is
composed with the task; conditions fill them and hang them onto materials.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import keyed_rng
from robopolicy_sim.randomisation.targets import Ids
from robopolicy_sim.robots import SimulatedRobot

SIZE = 64  # [pixels] of a side
MOST = 8  # materials with a texture at once; 12 kB each
_REPEATED = 4.0  # copies per side of a geom
_NAME = "randomised_texture"
_ROLE = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
Picture = NDArray[np.uint8]


class _Textured(SimulatedRobot):
    def spec(self) -> mujoco.MjSpec:
        spec = super().spec()
        for index in range(MOST):
            spec.add_texture(
                name=f"{_NAME}{index}", type=mujoco.mjtTexture.mjTEXTURE_2D, width=SIZE, height=SIZE,
                builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
            )  # fmt: skip
        return spec


def with_textures(arm: SimulatedRobot) -> SimulatedRobot:
    """The same robot, whose model brings the empty textures along."""
    return _Textured(**vars(arm))


class Textures:
    """Draws into the empty textures of a model.

    Args:
        model: composed from a robot ``with_textures``; without those only "own" can be asked for.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        ids = (mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXTURE, f"{_NAME}{i}") for i in range(MOST))
        self.ids = tuple(i for i in ids if i >= 0)
        self.version = 0  # of what is in them; renderers compare
        self._used = 0

    def reset(self) -> None:
        """The model has been restored: its materials look as they did."""
        self._used = 0

    def paint(self, materials: Ids, pattern: str, seed: int) -> None:
        """Cover materials with a pattern of ``kinds.TEXTURES``; "own" leaves them as they are.

        Raises:
            ConfigError: the model has no textures (left) for it.
        """
        if pattern == "own":
            return
        for material in materials:
            if self._used >= len(self.ids):
                raise ConfigError(
                    f"no texture left for another material: there are {len(self.ids)}, and only where the "
                    "environment was made with a randomisation that has 'texture'"
                )
            texture = self.ids[self._used]
            self._used += 1
            picture = _DRAW[pattern](keyed_rng(seed, int(material)))
            start, count = self._model.tex_adr[texture], picture.size
            self._model.tex_data[start : start + count] = picture.ravel()
            self._model.mat_texid[material, _ROLE] = texture
            self._model.mat_texuniform[material] = 0
            self._model.mat_texrepeat[material] = _REPEATED
            self._model.mat_rgba[material, :3] = 1.0  # it would tint the texture
            self.version += 1


def _two_colours(rng: np.random.Generator) -> NDArray[np.float64]:
    """(2, 3) colours in 0..1 that differ visibly."""
    first = rng.random(3)
    return np.stack([first, np.clip(first + rng.choice([-1, 1], 3) * rng.uniform(0.15, 0.6, 3), 0, 1)])


def _mixed(weight: NDArray[np.float64], rng: np.random.Generator) -> Picture:
    """(SIZE, SIZE, 3) from the (SIZE, SIZE) share of the second colour."""
    one, other = _two_colours(rng)
    mixed: Picture = np.rint(255 * (one + weight[..., np.newaxis] * (other - one))).astype(np.uint8)
    return mixed


def _checker(rng: np.random.Generator) -> Picture:
    squares = int(rng.choice([2, 4, 8]))
    row = np.arange(SIZE) * squares // SIZE
    return _mixed(((row[:, np.newaxis] + row) % 2).astype(np.float64), rng)


def _noise(rng: np.random.Generator) -> Picture:
    """Blotches of a random size that join at the edges."""
    smooth = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), rng.uniform(0.5, 6.0), mode="wrap")
    return _mixed((smooth - smooth.min()) / np.ptp(smooth), rng)


def _gradient(rng: np.random.Generator) -> Picture:
    """A wave across, so that copies side by side join without an edge."""
    along, across = (int(k) for k in rng.integers(0, 3, 2))
    phase = 2 * np.pi * np.arange(SIZE) / SIZE
    wave = np.cos(max(along, 1) * phase[:, np.newaxis] + across * phase + rng.uniform(0, 2 * np.pi))
    return _mixed((1 + wave) / 2, rng)


_DRAW = {"checker": _checker, "noise": _noise, "gradient": _gradient}
