"""What every adapted environment shares: specs, seeds, simulated time, the end of an episode."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, ShapeError, SpecError
from robopolicy.core.specs import ArraySpec, PolicySpecs, Specs

OBSERVATION_MODES = ("state", "image", "all")
Observation = dict[str, NDArray[Any]]
Built = TypeVar("Built", bound="AdaptedEnv")


class Outcome(NamedTuple):
    """Of one step: reward, success so far by the environment's own flag, and what else is worth reporting."""

    reward: float
    success: bool
    unstable: bool = False
    facts: dict[str, float] = {}  # noqa: RUF012


class AdaptedEnv(gym.Env[Observation, NDArray[Any]]):
    """A library's environment, ended by success (``terminated``), the step limit or unstable physics.

    Args:
        specs: of what ``begin`` and ``advance`` observe and take.
        instruction: what is asked, in words.
        success_predicate: what counts as success, in words.
        max_steps: policy steps in an episode.
        bounds: (2, action_dim) lowest and highest sensible action.
        render_mode: None or "rgb_array".
    Raises:
        ConfigError: another render_mode.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        specs: Specs,
        *,
        instruction: str,
        success_predicate: str,
        max_steps: int,
        bounds: NDArray[Any],
        render_mode: str | None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(
                f"render_mode {render_mode!r} is not None or one of {self.metadata['render_modes']}"
            )
        if max_steps < 1:
            raise ConfigError(f"max_steps must be >= 1, got {max_steps}")
        self.specs, self.instruction, self.max_steps = specs, instruction, max_steps
        self.success_predicate = success_predicate
        #: Seconds spent so far in the library's steps (its rewards included) and in pictures.
        self.timings = {"physics": 0.0, "render": 0.0}
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(specs.policy_rate)}
        self.action_space = gym.spaces.Box(*np.asarray(bounds, np.float32), dtype=np.float32)
        self.observation_space: Any = gym.spaces.Dict({key: _box(s) for key, s in specs.observation.items()})
        self._steps = -1

    @abstractmethod
    def begin(self, seed: int) -> None:
        """Start an episode whose every random choice follows from ``seed``."""

    @abstractmethod
    def advance(self, action: NDArray[Any]) -> Outcome:
        """Execute one float32 action for one policy period."""

    @abstractmethod
    def observe(self) -> Observation:
        """Values of ``specs.observation`` now, of any float type."""

    @abstractmethod
    def picture(self) -> NDArray[np.uint8]:
        """(height, width, 3) for a person to look at."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; ``seed`` alone decides its initial state. No options are known."""
        super().reset(seed=seed)
        if options:
            raise ConfigError(f"reset knows no options, got {sorted(options)}")
        self.begin(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._steps = 0
        return self._named(), {"is_success": False, "unstable": False, "time": 0.0}

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One policy period.

        Raises:
            ShapeError, NonFiniteValueError: the action breaks the spec; nothing has moved.
        """
        if self._steps < 0:
            raise gym.error.ResetNeeded("call reset() before anything else")
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (self.specs.action.dim,):
            raise ShapeError(f"an action has shape ({self.specs.action.dim},), got {action.shape}")
        self.specs.check_action(action)
        with self._timed("physics"):
            reward, success, unstable, facts = self.advance(action)
        self._steps += 1
        observation = self._named()
        unstable = unstable or not all(np.isfinite(v).all() for v in observation.values())
        success = success and not unstable
        truncated = unstable or self._steps >= self.max_steps
        time = self._steps / self.specs.policy_rate
        info = {**facts, "is_success": success, "unstable": unstable, "time": time}
        return observation, float(reward), success, truncated, info

    def render(self) -> NDArray[np.uint8] | None:
        """(height, width, 3) uint8, or None without a render_mode."""
        if self.render_mode is None:
            return None
        with self._timed("render"):
            return self.picture()

    def _named(self) -> Observation:
        specs = self.specs.observation
        with self._timed("render" if any(s.kind == "image" for s in specs.values()) else ""):
            values = self.observe()
        return {key: np.asarray(values[key]).astype(spec.dtype) for key, spec in specs.items()}

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = perf_counter()
        yield
        if what in self.timings:
            self.timings[what] += perf_counter() - start


def _box(spec: ArraySpec) -> gym.spaces.Box:
    low, high = (0, 255) if spec.kind == "image" else (-np.inf, np.inf)
    return gym.spaces.Box(low, high, spec.shape, np.dtype(spec.dtype).type)


def build(kind: Callable[..., Built], options: Mapping[str, Any], **fixed: Any) -> Built:
    """The environment with the options that it knows; ConfigError lists them when there is another."""
    known = sorted(set(inspect.signature(kind).parameters) - set(fixed))
    if strangers := sorted(set(options) - set(known)):
        raise ConfigError(f"no option {', '.join(strangers)} here; known: {', '.join(known)}")
    return kind(**fixed, **options)


def check_options(library: str, specs: tuple[str, float], given: tuple[str, float], mode: str) -> None:
    """Hold the asked (action space, rate [Hz]) against the only one there is; ConfigError names both."""
    if mode not in OBSERVATION_MODES:
        raise ConfigError(f"observation_mode {mode!r} is not one of {OBSERVATION_MODES}")
    if given != specs:
        raise ConfigError(
            f"{library} takes action_space {specs[0]!r} at policy_rate {specs[1]:g} Hz, "
            f"got {given[0]!r} at {given[1]:g} Hz"
        )


def camera_options(
    specs: PolicySpecs, known: Sequence[str], camera_of: Callable[[str], str] = str
) -> dict[str, Any]:
    """Constructor options that give the pictures a policy observes, as far as there are such cameras.

    Raises:
        SpecError: its pictures differ in size.
    """
    images = {k: s.shape[:2] for k, s in specs.specs.observation.items() if s.kind == "image"}
    if not images:
        return {"observation_mode": "state"}
    if len(set(images.values())) > 1:
        raise SpecError(f"all cameras are drawn at one size here, the policy wants {images}")
    cameras = tuple(camera_of(key) for key in images if camera_of(key) in known)
    return {"observation_mode": "all", "cameras": cameras, "image_size": next(iter(images.values()))}
