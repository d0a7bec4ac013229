"""What ``--candidates``, ``--select`` and the rest say, by the same rules for every command that reranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.evaluation.environments import parse_options
from robopolicy.runtime.reranking.config import CRITIC, RerankConfig, ScoreConfig, parse_selection


@dataclass(frozen=True)
class Asked:
    """Options of the command line, as ``cli.run`` and ``cli.eval`` explain them."""

    candidates: int = 1
    select: Sequence[str] = ()
    score: Sequence[str] = ()
    critic: Path | None = None
    temperature: float = 0.0
    pessimism: str = ""
    deadline_ms: float | None = None
    instruction: str = ""

    @classmethod
    def of(cls, args: object) -> Asked:
        """From the arguments of a command, which need not have all of them."""
        known = [field.name for field in fields(cls) if hasattr(args, field.name)]
        return cls(**{name: getattr(args, name) for name in known})

    def settings(self) -> list[str]:
        """Those that were given and make sense for a choice alone."""
        names = ("select", "score", "critic", "temperature", "pessimism")
        given = [name for name in names if getattr(self, name)]
        return [*given, "deadline-ms"] if self.deadline_ms is not None else given


def rerank_config(
    asked: Asked, *, own_critic: bool, most: int | None = None, deadline_s: float = 0.0
) -> RerankConfig | None:
    """How to choose; None where there is one candidate and nothing to choose.

    Args:
        own_critic: whether the policy comes with a critic, which decides unless something else is said.
        most: candidates that a server allows; None for any number.
        deadline_s: where none is given [s].
    Raises:
        ConfigError: settings of a choice without candidates, candidates without anything to choose by, more
            than there can be, or a critic that is not asked; plus what ``selection`` raises.
    """
    count, select = asked.candidates, tuple(asked.select)
    scores = selection(select, asked.score, pessimism=asked.pessimism) if select else ()
    if count < 1:
        raise ConfigError(f"num_candidates must be >= 1, got {count}")
    if most is not None and count > most:
        raise ConfigError(
            f"the server answers with at most {most} candidates, {count} are asked for; start it with a "
            "larger --max-candidates"
        )
    if count == 1:
        if given := asked.settings():
            raise ConfigError(f"--{given[0]} chooses among candidates: give their number, --candidates K")
        return None
    if not scores:
        if not own_critic and asked.critic is None:
            raise ConfigError(f"{count} candidates and nothing to choose by: --select, or --critic BUNDLE")
        scores = selection((CRITIC,), asked.score, pessimism=asked.pessimism)
    if asked.deadline_ms is not None:
        deadline_s = asked.deadline_ms * 1e-3
    config = RerankConfig(count, scores, asked.temperature, deadline_s)
    if asked.critic is not None and not config.needs_critic:
        raise ConfigError(f"--critic {asked.critic} is not asked: --select names {', '.join(select)}")
    return config


def no_critic(where: str) -> SpecError:
    """To be raised where a critic is asked and there is none; ``where`` ends in a verb."""
    return SpecError(
        f"{where} no critic; train one by 'robopolicy train-value' and export it with 'robopolicy export "
        "--critic RUN', or choose by other scores with --select"
    )


def selection(select: Sequence[str], score: Sequence[str], *, pessimism: str = "") -> tuple[ScoreConfig, ...]:
    """The scores to rerank by.

    Args:
        select: NAME or NAME=WEIGHT each.
        score: NAME.OPTION=VALUE each, the value in YAML.
        pessimism: see ``parse_selection``.
    Raises:
        ConfigError, UnknownNameError: as ``parse_selection`` says, or an option without a name.
    """
    texts: dict[str, list[str]] = {}
    for text in score:
        name, dot, option = text.partition(".")
        if not dot or "=" in name:
            raise ConfigError(f"--score takes NAME.OPTION=VALUE, got {text!r}")
        texts.setdefault(name, []).append(option)
    options: dict[str, dict[str, Any]] = {
        name: parse_options(found, flag=f"--score {name}.") for name, found in texts.items()
    }
    return parse_selection(select, options, pessimism=pessimism)
