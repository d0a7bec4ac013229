"""Whether a policy and an environment speak of the same arrays and commands."""

from __future__ import annotations

import math

from robopolicy.core.errors import SpecError
from robopolicy.core.specs import ActionSpec, ArraySpec, Specs


def check_fit(name: str, there: Specs, wanted: Specs) -> None:
    """Hold an environment's specs against a policy's.

    Names of single dimensions may differ, and so may units that one side does not know; observations may be
    more than the policy asks for.

    Raises:
        SpecError: anything else differs; says what, and prints both sides.
    """
    reasons = [
        f"observation {key!r} is {'absent' if key not in there.observation else 'another'}"
        for key, spec in wanted.observation.items()
        if key not in there.observation or not _equal(there.observation[key], spec)
    ]
    if _parts(there.action) != _parts(wanted.action):
        reasons.append("the actions differ")
    if not math.isclose(there.policy_rate, wanted.policy_rate, rel_tol=1e-3):
        reasons.append("the rates differ")
    if reasons:
        raise SpecError(
            f"{'; '.join(reasons)}\n"
            f"the environment {name} gives {describe(there)}\n"
            f"the policy wants {describe(wanted)}"
        )


def describe(specs: Specs) -> str:
    """One line: observations with shapes, the action's parts, the rate."""
    observations = ", ".join(f"{key} {spec.kind} {spec.shape}" for key, spec in specs.observation.items())
    parts = " + ".join(f"{p.space} {p.reference} ({', '.join(p.names)})" for p in specs.action.parts)
    return f"{observations}; actions {parts} at {specs.policy_rate:g} Hz"


def _equal(there: ArraySpec, wanted: ArraySpec) -> bool:
    units_agree = not there.units or not wanted.units or there.units == wanted.units
    return (there.kind, there.shape) == (wanted.kind, wanted.shape) and units_agree


def _parts(action: ActionSpec) -> list[tuple[str, str, int]]:
    return [(part.space, part.reference, len(part.names)) for part in action.parts]
