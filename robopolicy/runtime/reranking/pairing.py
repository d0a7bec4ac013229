"""Whether a critic may judge a policy's candidates: they must mean the same by them."""

from __future__ import annotations

import numpy as np

from robopolicy.core.errors import SpecError
from robopolicy.core.normalise import MINIMUM_RANGE, Affine, Normalisers
from robopolicy.core.specs import PolicySpecs

_NARROW = 1e-3  # of the dimension's unit: two ranges this narrow are the same
_OVERLAP = 0.5  # of one of the ranges


def check_pairing(
    specs: PolicySpecs,
    critic_specs: PolicySpecs,
    *,
    normalisers: Normalisers | None,
    critic_normalisers: Normalisers,
) -> None:
    """Raise SpecError, with both sides, unless the critic can judge this policy's candidates.

    Action, policy rate, robot and horizons must be equal, and each observation that the critic looks at one
    that the policy is given, spec by spec. Normalisers may differ as two fits to episodes of the same kind
    do: of each dimension's ranges [inverse(-1), inverse(1)] at least half is common, of the wider one for
    actions and of the narrower one for states, where an object that was toppled in some episodes alone does
    not make them another kind. A dimension that never moves in one of them has to lie in the other's range.

    Args:
        specs, normalisers: of the policy; None where its normalisers are not known.
    """
    mine, theirs = specs.specs, critic_specs.specs
    for what, ours, its in (
        ("actions", mine.action, theirs.action),
        ("policy_rate [Hz]", mine.policy_rate, theirs.policy_rate),
        ("the robot", mine.robot, theirs.robot),
        ("horizons", specs.horizons, critic_specs.horizons),
    ):
        if ours != its:
            sides = f"the policy has {ours or 'none'}, the critic {its or 'none'}"
            raise SpecError(f"policy and critic differ in {what}: {sides}")
    for name, spec in theirs.observation.items():
        if mine.observation.get(name) != spec:
            given = mine.observation.get(name, f"only {sorted(mine.observation)}")
            raise SpecError(f"the critic looks at {name!r} as {spec}, the policy is given {given}")
    if normalisers is None:
        return
    _check_ranges("action", mine.action.names, normalisers.action, critic_normalisers.action)
    for name, spec in theirs.observation.items():
        if spec.kind == "state":
            fits = normalisers.observation[name], critic_normalisers.observation[name]
            _check_ranges(name, spec.names, *fits, narrower=True)


def _check_ranges(
    what: str, names: tuple[str, ...], policy: Affine, critic: Affine, *, narrower: bool = False
) -> None:
    if len(policy.offset) != len(critic.offset):
        raise SpecError(
            f"the policy normalises {len(policy.offset)} dimensions of {what!r}, the critic "
            f"{len(critic.offset)}"
        )
    for i in range(len(policy.offset)):
        (low, high), (low_2, high_2) = _range(policy, i), _range(critic, i)
        common, (narrow, wide) = min(high, high_2) - max(low, low_2), sorted((high - low, high_2 - low_2))
        still = narrow <= 2 * MINIMUM_RANGE and common >= 0
        if not (still or wide < _NARROW or common >= _OVERLAP * (narrow if narrower else wide)):
            dimension = names[i] if i < len(names) else str(i)
            raise SpecError(
                f"policy and critic come from episodes of different kinds: {what} {dimension!r} ranges over "
                f"{low:.4g}..{high:.4g} in the policy's, {low_2:.4g}..{high_2:.4g} in the critic's"
            )


def _range(affine: Affine, i: int) -> tuple[float, float]:
    """What maps onto -1..1; a scale of exactly 1 is how ``Affine.fit`` marks what never moves."""
    offset, scale = affine.offset[i], affine.scale[i]
    scale = 0.0 if np.isclose(scale, 1.0, rtol=0, atol=1e-12) else scale
    return offset - scale, offset + scale
