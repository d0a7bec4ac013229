"""gym-pusht: push a T-shaped block onto its target. The id is its own, "gym_pusht/PushT-v0".

It has no MuJoCo, so it installs beside the core: ``pip install 'robopolicy[pusht]'``.

Source: Chi et al. 2023, Diffusion Policy; the package is Hugging Face's port of its environment.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import MissingDependencyError, UnknownNameError
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.evaluation.adapters._base import AdaptedEnv, Observation, Outcome, build, check_options

RATE = 10.0  # [Hz]
TASKS = ("PushT-v0",)
SIDE = 512.0  # [px] of the square that the agent moves in
_AGENT = ("agent_x", "agent_y")
#: As in ``datasets/importers/mappings/pusht.yaml``, so that the human demonstrations fit.
STATE = ArraySpec(
    (5,),
    units=("px", "px", "px", "px", "rad"),
    names=(*_AGENT, "block_x", "block_y", "block_angle"),
    angles=(4,),
)
AGENT_POS = ArraySpec((2,), units=("px", "px"), names=_AGENT)
PIXELS = ArraySpec((96, 96, 3), "uint8", kind="image")
ACTION = ActionSpec((ActionPart("planar_position", _AGENT, frame="image"),), reached="start")


def make(name: str, **options: Any) -> PushTEnv:
    """The environment of an id; UnknownNameError lists the known ones."""
    if name.partition("/")[2] not in TASKS:
        raise UnknownNameError("environment", name, [f"gym_pusht/{known}" for known in TASKS])
    return build(PushTEnv, options)


def options_for(specs: PolicySpecs) -> dict[str, Any]:
    """Options that give what a policy observes."""
    cameras = any(spec.kind == "image" for spec in specs.specs.observation.values())
    return {"observation_mode": "image" if cameras else "state"}


class PushTEnv(AdaptedEnv):
    """Success is the package's ``is_success``: the block covers 95 % of its target.

    Args:
        observation_mode: "state" (``state`` and its part ``agent_pos``), "image" (``pixels`` and
            ``agent_pos``) or "all".
        max_steps: the package's limit is 300.
    """

    def __init__(
        self,
        *,
        observation_mode: str = "state",
        action_space: str = "planar_position",
        policy_rate: float = RATE,
        render_mode: str | None = None,
        max_steps: int = 300,
    ) -> None:
        check_options("gym-pusht", ("planar_position", RATE), (action_space, policy_rate), observation_mode)
        specs = {"state": STATE} if observation_mode != "image" else {}
        specs |= {"agent_pos": AGENT_POS}
        specs |= {"pixels": PIXELS} if observation_mode != "state" else {}
        super().__init__(
            Specs(specs, ACTION, RATE),
            instruction="push the T-shaped block onto the T-shaped target",
            success_predicate="gym-pusht's own is_success (95 % covered) at any step; the episode ends there",
            max_steps=max_steps,
            bounds=np.array([[0.0, 0.0], [SIDE, SIDE]]),
            render_mode=render_mode,
        )
        self._env = _package_class()(obs_type="state", render_mode="rgb_array")
        self._pictures = observation_mode != "state"
        self._state: NDArray[np.float64] = np.zeros(5)

    def begin(self, seed: int) -> None:
        self._state, _ = self._env.reset(seed=seed)

    def advance(self, action: NDArray[Any]) -> Outcome:
        self._state, reward, _, _, info = self._env.step(action)
        facts = {"coverage": float(info["coverage"])}
        return Outcome(float(reward), bool(info["is_success"]), facts=facts)

    def observe(self) -> Observation:
        values: Observation = {"state": self._state, "agent_pos": self._state[:2]}
        if self._pictures:
            values["pixels"] = self._env._render()
        return values

    def picture(self) -> NDArray[np.uint8]:
        picture: NDArray[np.uint8] = self._env.render()
        return picture

    def close(self) -> None:
        """Free the window; calling twice is allowed."""
        self._env.close()


def _package_class() -> Any:
    try:
        with warnings.catch_warnings():
            # pygame imports pkg_resources, which setuptools has deprecated; not ours to mend
            warnings.simplefilter("ignore")
            return importlib.import_module("gym_pusht.envs").PushTEnv
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"environment 'gym_pusht/PushT-v0' needs the package {error.name!r}: "
            "pip install 'robopolicy[pusht]'"
        ) from error
