"""How candidates are chosen, as settings that travel as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robopolicy.core.errors import ConfigError
from robopolicy.core.serial import from_tree
from robopolicy.runtime.reranking.scores import score_module

CRITIC = "critic"


@dataclass(frozen=True)
class ScoreConfig:
    """One score and how much it counts.

    Args:
        name: a file of ``reranking.scores``.
        weight: of its values, in 1 / their unit; negative turns it round.
        options: of that file's ``Config``.
    """

    name: str
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight) or self.weight == 0:
            raise ConfigError(f"the weight of {self.name!r} must be finite and not 0, got {self.weight}")


@dataclass(frozen=True)
class RerankConfig:
    """How many candidates, judged by what, chosen how, by when.

    Args:
        num_candidates: K, drawn in one call of the policy.
        scores: added up by weight, each in its own unit; see ``docs/value_guidance.md`` for the units.
        temperature: 0 takes the best; larger samples closer to uniform, in the unit of the sum.
        deadline_s: from the call to the choice [s]; fewer candidates are drawn where more would take longer
            (see ``deadline``); 0 sets none.
    """

    num_candidates: int = 10
    scores: tuple[ScoreConfig, ...] = (ScoreConfig(CRITIC),)
    temperature: float = 0.0
    deadline_s: float = 0.0

    def __post_init__(self) -> None:
        if self.num_candidates < 1:
            raise ConfigError(f"num_candidates must be >= 1, got {self.num_candidates}")
        if not self.scores:
            raise ConfigError("at least one score is needed to choose by")
        names = [score.name for score in self.scores]
        if len(set(names)) != len(names):
            raise ConfigError(f"each score counts once, got {', '.join(names)}")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature must be finite and >= 0, got {self.temperature}")
        if not 0 <= self.deadline_s < math.inf:
            raise ConfigError(f"deadline_s must be finite and >= 0 [s], got {self.deadline_s}")

    @property
    def needs_critic(self) -> bool:
        """Whether one of the scores asks a critic."""
        return any(score.name == CRITIC for score in self.scores)


def parse_selection(
    select: Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    pessimism: str = "",
) -> tuple[ScoreConfig, ...]:
    """Scores as the command line names them.

    Args:
        select: NAME or NAME=WEIGHT each.
        options: by name of the score; ``cli._selection`` reads them from the command line.
        pessimism: of the critic, where it is selected; empty leaves its own default.
    Raises:
        ConfigError: a weight is no number, or options of a score that is not selected.
        UnknownNameError: no such score; SpecError: it has no such option. Both list the known.
    """
    given = {name: dict(values) for name, values in (options or {}).items()}
    scores = []
    for text in select:
        name, equals, weight = text.partition("=")
        module = score_module(name)
        chosen = given.pop(name, {})
        if name == CRITIC and pessimism:
            chosen.setdefault("pessimism", pessimism)
        from_tree(module.Config, chosen, f"score {name}")
        try:
            scores.append(ScoreConfig(name, float(weight) if equals else 1.0, chosen))
        except ValueError as error:
            raise ConfigError(f"a score is selected as NAME or NAME=WEIGHT, got {text!r}") from error
    if given:
        raise ConfigError(f"options of {sorted(given)}, which are not among the selected {list(select)}")
    return tuple(scores)
