"""Meta-World: 50 tasks of one arm, and a scripted expert for each. Ids: "metaworld/push-v3".

The goal is part of the state, as in its multi-task benchmarks (MT1, MT10, MT50).

Source: Yu et al. 2020, Meta-World; McLean et al. 2025, Meta-World+ (the package's version 3).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.evaluation.adapters._base import (
    AdaptedEnv,
    Observation,
    Outcome,
    build,
    camera_options,
    check_options,
)
from robopolicy.evaluation.adapters._libraries import drawing, is_unstable, require

RATE = 80.0  # [Hz] 5 physics steps of 2.5 ms
MAX_STEPS = 500
CAMERAS = ("topview", "corner", "corner2", "corner3", "corner4", "behindGripper", "gripperPOV")
UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")  # as mounted in its models; turned here
_NOISE_STREAM = 1  # keeps the expert's noise apart from other uses of the same seed

_XYZ, _QUAT = ("x", "y", "z"), ("qx", "qy", "qz", "qw")
_NOW = tuple(
    [f"hand_{n}" for n in _XYZ]
    + ["gripper_opening"]
    + [f"object{i}_{n}" for i in (1, 2) for n in (*_XYZ, *_QUAT)]
)
_NOW_UNITS = ("m", "m", "m", "1", *("m", "m", "m", "1", "1", "1", "1") * 2)
STATE = ArraySpec(
    (39,),
    units=(*_NOW_UNITS, *_NOW_UNITS, "m", "m", "m"),
    names=(*_NOW, *(f"previous_{n}" for n in _NOW), *(f"goal_{n}" for n in _XYZ)),
)
HAND = ArraySpec((4,), units=_NOW_UNITS[:4], names=_NOW[:4])
#: Changes of the hand's target, 1 is 1 cm a step, and the fingers' effort, 1 closes.
ACTION = ActionSpec((ActionPart("normalised", ("dx", "dy", "dz", "grasp_effort")),), reached="start")


def tasks(name: str = "metaworld/") -> list[str]:
    """Every task of the installed package; MissingDependencyError without one."""
    return sorted(require("metaworld.env_dict", name).ALL_V3_ENVIRONMENTS)


def task_of(name: str) -> str:
    """The task of an id; UnknownNameError lists the known ones."""
    task = name.partition("/")[2]
    if task not in (known := tasks(name)):
        raise UnknownNameError("Meta-World task", task, known)
    return task


def make(name: str, **options: Any) -> MetaWorldEnv:
    """The environment of an id; UnknownNameError lists the tasks."""
    return build(MetaWorldEnv, options, task=task_of(name))


def options_for(specs: PolicySpecs) -> dict[str, Any]:
    """Options that give what a policy observes."""
    return camera_options(specs, CAMERAS)


def expert(name: str) -> type[MetaWorldExpert]:
    """What makes the scripted expert of an id; UnknownNameError lists the tasks."""
    task_of(name)
    return MetaWorldExpert


class MetaWorldEnv(AdaptedEnv):
    """One task; success is its ``info["success"]``, at which the episode ends, as in its own evaluation.

    Args:
        task: "push-v3".
        observation_mode: "state" (its 39 numbers: the present, the instant before, the goal), "image"
            (hand and cameras) or "all".
        cameras: of ``CAMERAS``, for the modes with pictures.
        image_size: (height, width) in pixels.
        shadows: False draws observations without shadows, reflections and multisampling, 3 times faster.
        max_steps: at most the package's 500.
    """

    def __init__(
        self,
        task: str,
        *,
        observation_mode: str = "state",
        action_space: str = "normalised",
        policy_rate: float = RATE,
        render_mode: str | None = None,
        cameras: Sequence[str] = ("corner2", "gripperPOV"),
        image_size: Sequence[int] = (96, 96),
        render_size: Sequence[int] = (480, 480),
        shadows: bool = True,
        max_steps: int = MAX_STEPS,
    ) -> None:
        check_options("Meta-World", ("normalised", RATE), (action_space, policy_rate), observation_mode)
        if max_steps > MAX_STEPS:
            raise ConfigError(f"Meta-World stops after {MAX_STEPS} steps, got max_steps {max_steps}")
        if strangers := sorted(set(cameras) - set(CAMERAS)):
            raise UnknownNameError("camera", ", ".join(strangers), CAMERAS)
        with_pictures = observation_mode != "state"
        self._cameras = tuple(cameras) if with_pictures else ()
        specs = {"state": STATE} if observation_mode != "image" else {}
        specs |= {"hand": HAND} if with_pictures else {}
        specs |= {c: ArraySpec((*image_size, 3), "uint8", kind="image") for c in self._cameras}
        super().__init__(
            Specs(specs, ACTION, RATE),
            instruction=task.rpartition("-v")[0].replace("-", " "),
            success_predicate="Meta-World's own info['success'] at any step; the episode ends there",
            max_steps=max_steps,
            bounds=np.array([[-1.0] * 4, [1.0] * 4]),
            render_mode=render_mode,
        )
        self.task = task
        self.raw: NDArray[np.float64] = np.zeros(39)
        self._env = _seedable(task)
        self._image_size, self._render_size, self._shadows = image_size, render_size, shadows
        self._renderers: dict[tuple[Any, ...], Any] = {}

    def begin(self, seed: int) -> None:
        self._env.seed(seed)  # its reset() ignores the seed it is given
        self.raw, _ = self._env.reset()

    def advance(self, action: NDArray[Any]) -> Outcome:
        self.raw, reward, _, _, info = self._env.step(action)
        return Outcome(float(reward), bool(info["success"]), is_unstable(self._env.data))

    def observe(self) -> Observation:
        pictures = {c: self._draw(c, self._image_size, self._shadows) for c in self._cameras}
        return {"state": self.raw, "hand": self.raw[:4], **pictures}

    def picture(self) -> NDArray[np.uint8]:
        return self._draw("corner2", self._render_size, True)

    def close(self) -> None:
        """Free the renderers; calling twice is allowed."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _draw(self, camera: str, size: Sequence[int], shadows: bool) -> NDArray[np.uint8]:
        key = (*size, shadows)
        with drawing():
            if key not in self._renderers:
                self._renderers[key] = _renderer(self._env.model, size, shadows)
            renderer = self._renderers[key]
            renderer.update_scene(self._env.data, camera=camera)
            pixels: NDArray[np.uint8] = renderer.render()
        return np.ascontiguousarray(pixels[::-1, ::-1]) if camera in UPSIDE_DOWN else pixels.copy()


def _seedable(task: str) -> Any:
    """The bare environment, its goal visible, and drawing a new start from its own generator at each reset.

    The package offers fixed sets of 50 starts (``set_task``); what it calls seeded environments draw once and
    then freeze. These four fields are what its constructors of both kinds set.
    """
    env = require("metaworld.env_dict", f"metaworld/{task}").ALL_V3_ENVIRONMENTS[task]()
    env._partially_observable = False
    del env.sawyer_observation_space  # cached while the goal was hidden
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env._set_task_called = True
    return env


def _renderer(model: Any, size: Sequence[int], shadows: bool) -> Any:
    mujoco = importlib.import_module("mujoco")
    quality, frame = model.vis.quality, model.vis.global_
    kept = quality.offsamples, frame.offheight, frame.offwidth
    frame.offheight, frame.offwidth = size
    quality.offsamples = kept[0] if shadows else 0
    renderer = mujoco.Renderer(model, *size)
    quality.offsamples, frame.offheight, frame.offwidth = kept
    if not shadows:
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[int(flag)] = 0
    return renderer


class MetaWorldExpert:
    """The package's own scripted policy for whichever task it is attached to; acts on the 39 numbers.

    Args:
        noise: standard deviation of ``perturb`` on every dimension of the action [-]; keyed by the seed.
    Raises:
        ConfigError: negative noise.
    """

    def __init__(self, *, noise: float = 0.0) -> None:
        if noise < 0:
            raise ConfigError(f"noise must be >= 0, got {noise}")
        self._noise = noise

    def reset(self, env: MetaWorldEnv, seed: int = 0) -> None:
        """Attach to an environment that has just been reset."""
        policies = require("metaworld.policies", f"metaworld/{env.task}").ENV_POLICY_MAP
        self._env, self._policy = env, policies[env.task]()
        self._rng = keyed_rng(seed, _NOISE_STREAM)

    def act(self) -> NDArray[np.float32]:
        """(4,) action, cut to -1..1 as the environment would."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says at most steps that its output will be cut
            action = self._policy.get_action(self._env.raw)
        clean: NDArray[np.float32] = np.clip(action, -1.0, 1.0).astype(np.float32)
        return clean

    def perturb(self, action: NDArray[Any]) -> NDArray[np.float32]:
        """The action with Gaussian noise, to execute while the clean one is recorded (Laskey et al. 2017)."""
        noise = self._rng.normal(0.0, self._noise, size=np.shape(action)) if self._noise > 0 else 0.0
        return np.clip(action + noise, -1.0, 1.0).astype(np.float32)
