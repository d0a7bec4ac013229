"""Ranges of randomisation as wide as a policy can bear: DORAEMON's step, in double precision.

Source: Domain Randomization via Entropy Maximization (Tiboni et al., ICLR 2024), eq. 3 and 4: one Beta
distribution per parameter; maximise the entropy subject to a success rate, estimated from the episodes at
hand by importance weights, and to a trust region.

Two things differ from the published code: the weights are normalised by their sum, so that the optimiser
gains nothing from the chance excess of a plain mean of weights, and everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.betas import Betas

Float = NDArray[np.float64]
GROWN, RETREATED, HELD = "grown", "retreated", "held"
_SHRINKS = 6  # halvings of the trust region before a step is given up
_SLACK = 1e-6  # of a constraint that counts as kept


@dataclass(frozen=True)
class DoraemonConfig:
    """How far to go.

    Args:
        success: alpha, the rate that must be kept.
        caution: standard errors by which an estimate must exceed alpha. Without any, as in the paper, the
            optimiser picks distributions that the episodes at hand flatter, and the rate ends below alpha.
        trust: epsilon, the largest KL(new || old) of one step.
        least_ess: the smallest effective sample size of a step, as a share of the newest episodes. With less
            the estimate rests on too few: the trust region is halved, and in the end the step dropped.
        most: largest parameter of a Beta distribution.
    """

    success: float = 0.5
    caution: float = 1.0
    trust: float = 0.1
    least_ess: float = 0.3
    most: float = 1000.0

    def __post_init__(self) -> None:
        if not 0 < self.success < 1:
            raise ConfigError(f"success must lie in (0, 1), got {self.success}")
        if not self.caution >= 0:
            raise ConfigError(f"caution must be >= 0, got {self.caution}")
        if not self.trust > 0:
            raise ConfigError(f"trust must be > 0, got {self.trust}")
        if not 0 <= self.least_ess < 1:
            raise ConfigError(f"least_ess must lie in [0, 1), got {self.least_ess}")
        if not self.most > 1:
            raise ConfigError(f"most must be > 1, got {self.most}")


@dataclass(frozen=True)
class Step:
    """One update.

    Args:
        new: the distributions to draw from next.
        outcome: "grown" (entropy maximised), "retreated" (too little success: it was maximised instead), or
            "held" (no admissible step: they stay as they are).
        success: estimated rate under ``new``; kl: KL(new || old); ess: effective sample size of the estimate.
        trust: of the step, after halvings.
    """

    new: Betas
    outcome: str
    success: float
    kl: float
    ess: float
    trust: float


@dataclass(frozen=True)
class Batch:
    """Episodes, and the distributions that their conditions were drawn from.

    Args:
        drawn: (n, dim) values of the parameters; successes: (n,) whether each episode succeeded.
    """

    betas: Betas
    drawn: Float
    successes: NDArray[np.bool_]

    def __post_init__(self) -> None:
        count, dim = len(self.successes), self.betas.dim
        if self.drawn.shape != (count, dim) or not count:
            raise ConfigError(
                f"need (n, {dim}) values and (n,) outcomes, n > 0, got {self.drawn.shape}, "
                f"{self.successes.shape}"
            )


class Estimate:
    """Success under other distributions than those the episodes were drawn from.

    Several batches count as one draw from their mixture (the balance heuristic, Veach and Guibas 1995).
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._drawn = np.concatenate([batch.drawn for batch in batches]).astype(np.float64)
        self._success = np.concatenate([batch.successes for batch in batches]).astype(np.float64)
        densities = np.stack([batch.betas.log_density(self._drawn) for batch in batches])
        shares = np.log([len(batch.successes) / len(self._drawn) for batch in batches])
        self._old_density = special.logsumexp(densities + shares[:, np.newaxis], axis=0)

    def weights(self, new: Betas) -> Float:
        """(n,) normalised to sum 1."""
        logs = new.log_density(self._drawn) - self._old_density
        weights = np.exp(logs - logs.max())
        normalised: Float = weights / weights.sum()
        return normalised

    def success(self, new: Betas) -> float:
        return float(self.weights(new) @ self._success)

    def success_gradient(self, new: Betas) -> Float:
        """(2 dim,) with respect to every a, then every b."""
        weights = self.weights(new)
        centred = weights * (self._success - weights @ self._success)
        return np.asarray(centred @ new.log_density_gradient(self._drawn))

    def bound(self, new: Betas, caution: float) -> float:
        """The rate less some of its standard errors."""
        weights = self.weights(new)
        rate = float(weights @ self._success)
        return rate - caution * float(np.sqrt(np.sum((weights * (self._success - rate)) ** 2)))

    def bound_gradient(self, new: Betas, caution: float) -> Float:
        """(2 dim,) as of ``success``."""
        weights, slope = self.weights(new), self.success_gradient(new)
        residual = self._success - weights @ self._success
        error = np.sqrt(np.sum((weights * residual) ** 2))
        if caution == 0 or error == 0:
            return slope
        scores = new.log_density_gradient(self._drawn)
        change = weights[:, np.newaxis] * (scores - weights @ scores)  # of the weights
        variance = 2 * (weights * residual**2) @ change - 2 * np.sum(weights**2 * residual) * slope
        return np.asarray(slope - caution * variance / (2 * error))

    def ess(self, new: Betas) -> float:
        """Effective sample size: n for equal weights, 1 if one episode decides (Kish 1965)."""
        return float(1.0 / np.sum(self.weights(new) ** 2))


def doraemon_step(batches: Sequence[Batch], config: DoraemonConfig | None = None) -> Step:
    """The next distributions.

    Args:
        batches: at least one, the newest last; the trust region is about what that one was drawn from. While
            the policy stays the same, earlier ones are as good as new; of another policy they are not.
    Raises:
        ConfigError: no batches.
    """
    if not batches:
        raise ConfigError("a step needs at least one batch of episodes")
    config = config or DoraemonConfig()
    old, estimate = batches[-1].betas, Estimate(batches)
    trust = config.trust
    for _ in range(_SHRINKS):
        new, outcome = _propose(old, estimate, config, trust)
        ess = estimate.ess(new)
        if ess >= config.least_ess * len(batches[-1].successes):
            return Step(new, outcome, estimate.success(new), new.kl(old), ess, trust)
        trust /= 2
    return Step(old, HELD, estimate.success(old), 0.0, estimate.ess(old), trust)


def _propose(old: Betas, estimate: Estimate, config: DoraemonConfig, trust: float) -> tuple[Betas, str]:
    """Most entropy where success suffices; most success where it does not."""

    def spare(new: Betas) -> float:
        return estimate.bound(new, config.caution) - config.success

    def spare_gradient(new: Betas) -> Float:
        return estimate.bound_gradient(new, config.caution)

    start = old
    if spare(old) < 0:
        start = _solve(old, [old], trust, config.most, objective=spare, gradient=spare_gradient)
        if spare(start) < -_SLACK:
            return (start, RETREATED) if spare(start) > spare(old) + _SLACK else (old, HELD)
    grown = _solve(
        old,
        [start, old],
        trust,
        config.most,
        objective=lambda new: new.entropy(),
        gradient=lambda new: new.entropy_gradient(),
        constraint=spare,
        constraint_gradient=spare_gradient,
    )
    if grown is old or (start is old and grown.entropy() < old.entropy() + _SLACK):
        return old, HELD
    return grown, GROWN


def _solve(
    old: Betas,
    starts: list[Betas],
    trust: float,
    most: float,
    *,
    objective: Callable[[Betas], float],
    gradient: Callable[[Betas], Float],
    constraint: Callable[[Betas], float] | None = None,
    constraint_gradient: Callable[[Betas], Float] | None = None,
) -> Betas:
    """The best admissible distributions that sequential quadratic programming finds from some starts.

    The variables are logarithms, in which equal steps change a narrow and a wide distribution alike.
    """

    def at(logs: Float) -> Betas:
        return old.replaced(np.exp(logs))

    def chained(of: Callable[[Betas], Float]) -> Callable[[Float], Float]:
        return lambda logs: of(at(logs)) * np.exp(logs)

    limits = [
        {
            "type": "ineq",
            "fun": lambda logs: trust - at(logs).kl(old),
            "jac": chained(lambda new: -new.kl_gradient(old)),
        }
    ]
    if constraint is not None and constraint_gradient is not None:
        limits.append(
            {"type": "ineq", "fun": lambda logs: constraint(at(logs)), "jac": chained(constraint_gradient)}
        )

    def admissible(new: Betas) -> bool:
        return new.kl(old) <= trust + _SLACK and (constraint is None or constraint(new) >= -_SLACK)

    found = [start for start in starts if admissible(start)]
    for start in starts:
        result = optimize.minimize(
            lambda logs: -objective(at(logs)),
            np.log(start.parameters),
            jac=chained(lambda new: -gradient(new)),
            method="SLSQP",
            bounds=[(0.0, np.log(most))] * len(start.parameters),
            constraints=limits,
            options={"maxiter": 200, "ftol": 1e-10},
        )
        if np.isfinite(result.x).all() and admissible(new := at(result.x)):
            found.append(new)
    return max(found, key=objective) if found else old
