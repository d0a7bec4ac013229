"""How well the logs decide each parameter, and what they cannot tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robopolicy.core.geometry import Float
from robopolicy_sim.sysid.fit import Fit
from robopolicy_sim.sysid.unknowns import Unknown

#: Share of the doubt before that may be left before a parameter counts as open.
OPEN = 0.5
_TIED = 0.7  # correlation of two errors above which only a combination of both is known


@dataclass(frozen=True)
class Confidence:
    """Of a fit.

    Args:
        deviation: (n,) standard deviation of each element of the vector.
        open: (n,) True where the logs add little to what was believed: a flat direction of the error.
        tied: for each element, the names of those that can change with it and leave the error as it is.
    """

    deviation: Float
    open: list[bool]
    tied: list[list[str]]


def confidence(fit: Fit, found: list[Unknown]) -> Confidence:
    """From the Jacobian at the optimum.

    Errors of a model that lacks something are alike for a while, so independent ones may not be assumed
    (``mujoco.sysid.calculate_intervals`` does): seconds of a log are taken as independent of each other,
    their gradients' spread gives the covariance H^-1 G H^-1 (White 1982, theorem 3.2; clustered).
    """
    belief = np.array([u.belief for u in found])
    prior = np.diag(1.0 / belief**2)
    inverse = np.linalg.inv(fit.jacobian.T @ fit.jacobian + prior)
    gradients = np.zeros((int(fit.blocks.max()) + 1, len(found)))
    np.add.at(gradients, fit.blocks, fit.jacobian * fit.residual[:, None])
    spread = inverse @ (gradients.T @ gradients + prior) @ inverse
    left = np.sqrt(np.diag(inverse))
    correlation = np.abs(inverse) / np.outer(left, left)
    tied = [
        [found[j].name for j in np.argsort(-row) if j != i and row[j] > _TIED]
        for i, row in enumerate(correlation)
    ]
    return Confidence(
        deviation=np.sqrt(np.diag(spread)),
        open=[bool(share > OPEN) for share in left / belief],
        tied=tied,
    )
