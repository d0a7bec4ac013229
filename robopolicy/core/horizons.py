"""The three horizons of a receding-horizon policy, and everything derived from them."""

from __future__ import annotations

from dataclasses import dataclass

from robopolicy.core.errors import ConfigError


@dataclass(frozen=True)
class Horizons:
    """How many observations go in, how many actions come out, how many are executed.

    Step 0 of an action chunk belongs to the OLDEST observation of the window, so the first
    ``observation_horizon - 1`` actions lie in the past. Keeping them in the chunk is what
    past-token prediction needs (PTP, Torne et al. 2025), and is the convention of Chi et al. 2023.

    Action ``k`` of an episode is in force from the instant of observation ``k`` until the next
    one; ``ActionSpec.reached`` says when within that step the command is reached.

    Args:
        observation: past observations given to the policy, the current one included.
        prediction: actions in one chunk.
        action: actions executed before the policy is asked again.
    Raises:
        ConfigError: a horizon is below 1, or the executed actions reach past the chunk.
    """

    observation: int = 2
    prediction: int = 16
    action: int = 8

    def __post_init__(self) -> None:
        for name in ("observation", "prediction", "action"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} horizon must be >= 1, got {getattr(self, name)}")
        if self.action_stop > self.prediction:
            raise ConfigError(
                f"executed actions {self.action_start}..{self.action_stop - 1} reach past a chunk of "
                f"{self.prediction}: need observation + action - 1 <= prediction, got "
                f"{self.observation} + {self.action} - 1 > {self.prediction}"
            )

    @property
    def action_start(self) -> int:
        """Index in the chunk of the action that belongs to the current observation."""
        return self.observation - 1

    @property
    def action_stop(self) -> int:
        """Index in the chunk one past the last executed action."""
        return self.action_start + self.action

    @property
    def executed(self) -> slice:
        """Slice of the chunk that is executed before replanning."""
        return slice(self.action_start, self.action_stop)
