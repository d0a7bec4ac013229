"""Chunks as a critic sees them: where an action is a place to be, how far that is from where the arm is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robopolicy.core.goals import goal_keys
from robopolicy.core.normalise import MINIMUM_RANGE, Normalisers
from robopolicy.core.specs import ActionPart, ArraySpec, Specs

POSITION = 3  # dimensions of a pose that can be subtracted


@dataclass(frozen=True)
class Match:
    """Dimension ``action`` of a command is a place, which ``element`` of the observation ``key`` tells."""

    action: int
    key: str
    element: int


def matches(specs: Specs) -> list[Match]:
    """Absolute joint positions with the observation of the same joints in the same units, and the position of
    absolute poses with the observed ``ee_pose``. Angles that wrap and goals do not count, and where several
    observations would do, none does unless it is named as the action space."""
    found = []
    for part, place in specs.action.slices():
        wanted = _places(part)
        fitting = [key for key, spec in specs.observation.items() if _tells(key, spec, part, wanted)]
        fitting = [key for key in fitting if key not in goal_keys(specs.observation)]
        named = [key for key in fitting if key == part.space]
        if len(chosen := named or fitting) == 1:
            names = specs.observation[chosen[0]].names
            found += [
                Match(place.start + offset, chosen[0], names.index(name))
                for offset, (name, _) in enumerate(wanted)
            ]
    return found


def _places(part: ActionPart) -> list[tuple[str, str]]:
    """Name and unit of its dimensions that are places."""
    if part.reference != "absolute" or part.space not in ("joint_position", "ee_pose"):
        return []
    pairs = list(zip(part.names, part.units))
    return pairs[:POSITION] if part.space == "ee_pose" else pairs


def _tells(key: str, spec: ArraySpec, part: ActionPart, wanted: list[tuple[str, str]]) -> bool:
    if spec.kind != "state" or len(spec.shape) != 1 or (part.space == "ee_pose" and "ee_pose" not in key):
        return False
    told = [pair for i, pair in enumerate(zip(spec.names, spec.units)) if i not in spec.angles]
    return bool(wanted) and set(wanted) <= set(told)


class RelativeActions(nn.Module):
    """From normalised inputs to (action - observation - mean) / deviation, in two parts that add up.

    Both normalisers are affine, so that this is rate * action + (shift - pull * observation): ``of_chunk``
    is the one, ``of_observation`` the other. Dimensions without a match stay what they are.

    Args:
        specs: some dimension of whose action has a match.
    """

    rate: Tensor
    pull: Tensor
    shift: Tensor

    def __init__(self, specs: Specs) -> None:
        super().__init__()
        self.matches = matches(specs)
        self.register_buffer("rate", torch.ones(specs.action.dim))
        self.register_buffer("pull", torch.zeros(len(self.matches)))
        self.register_buffer("shift", torch.zeros(len(self.matches)))

    @torch.no_grad()
    def fit(
        self,
        normalisers: Normalisers,
        observation: Mapping[str, NDArray[Any]],
        action: NDArray[np.floating[Any]],
        episode: NDArray[np.int64],
        *,
        steps: int,
    ) -> None:
        """Standardise the differences of commands to come from the present observation.

        Args:
            observation: each (windows, *shape) at the instants of ``action`` (windows, action_dim), both in
                physical units, windows of an ``episode`` in a row.
            steps: of a chunk that is scored, from the current one on.
        """
        for place, match in enumerate(self.matches):
            here = observation[match.key][:, match.element].astype(np.float64)
            there = action[:, match.action].astype(np.float64)
            rows = np.arange(len(here))
            pairs = [(rows[: len(rows) - k], rows[k:]) for k in range(min(steps, len(rows)))]
            away = np.concatenate([(there[b] - here[a])[episode[a] == episode[b]] for a, b in pairs])
            mean, deviation = away.mean(), max(float(away.std()), MINIMUM_RANGE)
            own, seen = normalisers.action, normalisers.observation[match.key]
            offset = own.offset[match.action] - seen.offset[match.element]
            self.rate[match.action] = own.scale[match.action] / deviation
            self.pull[place] = seen.scale[match.element] / deviation
            self.shift[place] = (offset - mean) / deviation

    def of_chunk(self, chunk: Tensor) -> Tensor:
        """(..., action_dim) normalised commands, scaled."""
        return chunk * self.rate

    def of_observation(self, observation: dict[str, Tensor]) -> Tensor:
        """(batch, action_dim) to be added to each command, of the newest observation of windows."""
        newest = [observation[match.key][:, -1, match.element] for match in self.matches]
        moved = self.shift - self.pull * torch.stack(newest, dim=-1)
        columns = [match.action for match in self.matches]
        return moved @ torch.eye(len(self.rate), device=moved.device, dtype=moved.dtype)[columns]
