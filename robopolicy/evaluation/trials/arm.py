"""What trials need of an arm: the same few calls, whether it is simulated or stands on a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.evaluation.environments import ENVIRONMENTS, known, load_entry
from robopolicy.evaluation.trials.protocol import Measured
from robopolicy.evaluation.trials.simulated import SimulatedArm
from robopolicy.evaluation.trials.starts import Start, load_starts
from robopolicy.runtime import InferenceClient

ARMS = "robopolicy.arms"


class Arm(Protocol):
    """An arm that can run several policies, with a camera that sees the scene."""

    def prepare(self, seed: int) -> None:
        """Move to where every trial begins; must not depend on the policy."""
        ...

    def run(self, policy: int, seed: int) -> Measured:
        """Run one of the policies until it ends, and come to rest."""
        ...

    def read(self) -> NDArray[Any] | None:
        """The newest (height, width, 3) uint8 picture of the scene, red first; None when there is none."""
        ...


def make_arm(
    name: str, clients: Sequence[InferenceClient], *, duration_s: float, stop: Callable[[], bool]
) -> AbstractContextManager[Arm]:
    """An arm of an installed package (entry-point group ``robopolicy.arms``), or a simulated task.

    Args:
        clients: one per policy.
        duration_s: longest run [s].
        stop: asked every tick; ends the run.
    Raises:
        UnknownNameError: neither; lists both.
    """
    check_name(name)
    make = load_entry(ARMS, "arm", name) if name in known(ARMS) else None
    if make is None:
        return SimulatedArm(name, clients, duration_s=duration_s, stop=stop)
    arm: AbstractContextManager[Arm] = make(clients, duration_s=duration_s, stop=stop)
    return arm


def check_name(name: str) -> None:
    """UnknownNameError unless there is such an arm."""
    tasks = known(ENVIRONMENTS)
    if name not in known(ARMS) and name not in tasks:
        raise UnknownNameError("arm", name, [*known(ARMS), *(f"{task} (simulated)" for task in tasks)])


def starts_for(name: str, path: Path | None, *, blocks: int, repeats: int) -> tuple[Start, ...]:
    """What a person restores before each trial; a simulated arm sets its starts up itself.

    Raises:
        ConfigError: a real arm without ``path``; a simulated one with it, or with repeats.
    """
    if name in known(ARMS):
        if path is None:
            raise ConfigError("say from which starts to run: a folder of photographs, or a YAML file")
        return load_starts(path)
    if path is not None or repeats != 1:
        raise ConfigError("a simulated arm sets its starts up from seeds: give their number, no photographs")
    if blocks < 1:
        raise ConfigError(f"at least one block is needed, got {blocks}")
    return tuple(Start(f"start {place + 1}") for place in range(blocks))
