"""What candidates are judged by. One file = one score.

Each has a frozen ``Config`` of its options, plain values that travel as JSON, and

    build(config: Config, specs: PolicySpecs, *, robot: Robot | None, critic: Critic | None) -> Score

where ``specs`` are the policy's. ``build`` raises SpecError or ConfigError for what does not fit together.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from robopolicy.core.errors import UnknownNameError


def names() -> list[str]:
    """Scores that can be selected: the file names in this package."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def score_module(name: str) -> ModuleType:
    """The module ``robopolicy.runtime.reranking.scores.NAME``; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("score", name, names())
    return importlib.import_module(f"{__name__}.{name}")
