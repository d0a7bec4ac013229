"""DORAEMON's step against brute force and known answers; gradients; effective sample size; fallback."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize, special, stats

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.betas import Betas
from robopolicy.evaluation.doraemon import (
    GROWN,
    HELD,
    RETREATED,
    Batch,
    DoraemonConfig,
    Estimate,
    doraemon_step,
)


def one(a, b, low=0.0, high=1.0):
    return Betas(("p",), (low,), (high,), (a,), (b,))


def two(a, b):
    return Betas(("p", "q"), (0.0, -1.0), (1.0, 3.0), a, b)


def test_entropy_divergence_and_density_agree_with_scipy():
    wide, narrow = two((1.5, 3.0), (2.0, 8.0)), two((2.5, 1.0), (4.0, 5.0))
    p = [stats.beta(1.5, 2.0), stats.beta(3.0, 8.0)]
    q = [stats.beta(2.5, 4.0), stats.beta(1.0, 5.0)]
    assert wide.entropy() == pytest.approx(sum(float(d.entropy()) for d in p))
    grid = (np.arange(200_000) + 0.5) / 200_000
    kl = sum(np.mean(d.pdf(grid) * (d.logpdf(grid) - e.logpdf(grid))) for d, e in zip(p, q))
    assert wide.kl(narrow) == pytest.approx(kl, rel=1e-5)
    x = np.array([[0.2, 0.0], [0.9, 2.5]])
    expected = p[0].logpdf(x[:, 0]) + p[1].logpdf((x[:, 1] + 1) / 4)
    np.testing.assert_allclose(wide.log_density(x), expected)
    np.testing.assert_allclose(wide.quantiles(0.3), [p[0].ppf(0.3), -1 + 4 * p[1].ppf(0.3)])
    assert one(1.0, 1.0).entropy() == pytest.approx(0.0) and wide.kl(wide) == pytest.approx(0.0)


def test_gradients_are_those_of_the_functions():
    old, rng = two((3.0, 2.0), (5.0, 2.5)), np.random.default_rng(0)
    drawn = old.sample(50, rng)
    estimate = Estimate([Batch(old, drawn, rng.random(50) < 0.5)])
    at = np.array([2.0, 1.7, 3.3, 2.2])
    pairs = [
        (lambda v: old.replaced(v).entropy(), old.replaced(at).entropy_gradient()),
        (lambda v: old.replaced(v).kl(old), old.replaced(at).kl_gradient(old)),
        (lambda v: estimate.success(old.replaced(v)), estimate.success_gradient(old.replaced(at))),
        (lambda v: estimate.bound(old.replaced(v), 1.5), estimate.bound_gradient(old.replaced(at), 1.5)),
        (lambda v: old.replaced(v).log_density(drawn)[7], old.replaced(at).log_density_gradient(drawn)[7]),
    ]
    for function, gradient in pairs:
        np.testing.assert_allclose(gradient, optimize.approx_fprime(at, function, 1e-7), rtol=1e-5, atol=1e-6)


def test_effective_sample_size_of_known_weights():
    old = one(1.0, 1.0)
    drawn = (np.arange(1000) + 0.5)[:, None] / 1000
    estimate = Estimate([Batch(old, drawn, np.ones(1000, dtype=bool))])
    assert estimate.ess(old) == pytest.approx(1000)
    # Beta(2, 1) has weights 2 x: (sum w)^2 / sum w^2 = n * 1^2 / (4/3)
    assert estimate.ess(one(2.0, 1.0)) == pytest.approx(750, rel=1e-3)


def test_estimates_of_success_are_consistent():
    rng, old, new = np.random.default_rng(1), one(2.0, 3.0), one(3.0, 2.5)
    drawn = old.sample(200_000, rng)
    estimated = Estimate([Batch(old, drawn, drawn[:, 0] < 0.6)]).success(new)
    assert estimated == pytest.approx(stats.beta(3.0, 2.5).cdf(0.6), abs=0.005)


def brute_force(old, drawn, successes, config, points=120):
    """The best of a fine grid of (a, b): slow, obvious, for one parameter."""
    estimate, best = Estimate([Batch(old, drawn, successes)]), None
    grid = np.exp(np.linspace(0, np.log(200), points))
    for a, b in itertools.product(grid, grid):
        new = old.replaced(np.array([a, b]))
        if new.kl(old) > config.trust:
            continue
        kept = estimate.bound(new, config.caution) >= config.success
        if kept and (best is None or new.entropy() > best.entropy()):
            best = new
    return best


@pytest.mark.parametrize(("a", "b", "edge"), [(20.0, 20.0, 0.55), (4.0, 9.0, 0.5), (1.0, 30.0, 0.1)])
@pytest.mark.parametrize("caution", [0.0, 1.0])
def test_a_step_is_as_good_as_brute_force(a, b, edge, caution):
    rng = np.random.default_rng(3)
    config = DoraemonConfig(success=0.7, caution=caution, trust=0.2, least_ess=0.0)
    old = one(a, b)
    drawn = old.sample(300, rng)
    successes = drawn[:, 0] < edge
    step = doraemon_step([Batch(old, drawn, successes)], config)
    reference = brute_force(old, drawn, successes, config)
    assert step.outcome == GROWN
    assert step.new.entropy() >= reference.entropy() - 1e-6
    assert step.kl <= config.trust + 1e-6 and step.success >= config.success - 1e-6
    assert step.new.entropy() > old.entropy()


def adapt(start, succeeds, config, iterations, episodes=2000, seed=0, pooled=False):
    """Distributions after every iteration, and the true rate that each had."""
    rng, betas, history, batches = np.random.default_rng(seed), start, [], []
    for _ in range(iterations):
        drawn = betas.sample(episodes, rng)
        successes = succeeds(drawn, rng)
        history.append((betas, float(successes.mean())))
        batches = [*(batches if pooled else []), Batch(betas, drawn, successes)]
        betas = doraemon_step(batches, config).new
    return betas, history


def best_known(edge, success):
    """Analytic: the widest Beta(a, b) with P(x < edge) >= success, by a search over its exact rate."""

    def entropy(logs):
        return -one(*np.exp(logs)).entropy()

    def rate(logs):
        return stats.beta(*np.exp(logs)).cdf(edge) - success

    found = optimize.minimize(
        entropy, [0.1, 1.0], method="SLSQP", bounds=[(0, 7)] * 2, constraints={"type": "ineq", "fun": rate}
    )
    return one(*np.exp(found.x))


@pytest.mark.parametrize("success", [0.5, 0.8])
def test_it_grows_to_the_edge_of_what_succeeds(success):
    config = DoraemonConfig(success=success, trust=0.1)
    end, history = adapt(one(20.0, 60.0), lambda x, _: x[:, 0] < 0.5, config, 40)
    rates = [rate for _, rate in history]
    assert min(rates) >= success - 0.04  # two standard errors of an estimate from 2000 weighted episodes
    best = best_known(0.5, success)
    assert end.entropy() == pytest.approx(best.entropy(), abs=0.05)
    np.testing.assert_allclose(end.quantiles(0.5), best.quantiles(0.5), atol=0.05)
    entropies = [betas.entropy() for betas, _ in history]
    assert entropies[-1] > entropies[0] + 0.5


def test_the_rate_is_kept_by_caution_and_by_episodes_of_earlier_iterations():
    """Each optimum is what the episodes at hand flatter, so without either the rate ends too low."""
    start = Betas.around({name: (0.0, 0.5, 1.0) for name in "pqrs"}, 30.0)

    def rate(*, caution, pooled):
        config = DoraemonConfig(success=0.8, caution=caution, trust=0.3)
        near = lambda x, _: np.max(np.abs(x - 0.5), axis=1) < 0.3  # noqa: E731
        _, history = adapt(start, near, config, 35, episodes=100, pooled=pooled)
        return np.mean([rate for _, rate in history[15:]])

    assert rate(caution=0.0, pooled=False) < 0.75
    assert rate(caution=1.0, pooled=True) == pytest.approx(0.81, abs=0.025)


def test_without_failures_it_ends_uniform():
    start, config = one(30.0, 90.0), DoraemonConfig(trust=0.2)
    end, _ = adapt(start, lambda x, _: np.ones(len(x), dtype=bool), config, 40, episodes=200)
    assert end.entropy() == pytest.approx(0.0, abs=1e-3)


def test_each_parameter_gets_the_room_it_can_have():
    start = Betas.around({"hard": (0.0, 0.2, 1.0), "free": (-2.0, 0.0, 2.0)})
    end, _ = adapt(start, lambda x, _: x[:, 0] < 0.4, DoraemonConfig(success=0.8), 80)
    free = one(end.a[1], end.b[1]).entropy()
    assert free > -0.05 and end.quantiles(0.8)[0] < 0.45


def test_too_little_success_makes_it_retreat_within_the_trust_region():
    rng, old = np.random.default_rng(0), one(10.0, 10.0)
    drawn = old.sample(500, rng)
    config = DoraemonConfig(success=0.9, trust=0.05)
    step = doraemon_step([Batch(old, drawn, drawn[:, 0] < 0.4)], config)
    assert step.outcome == RETREATED
    assert step.kl <= 0.05 + 1e-6 and step.kl > 0.04
    assert step.success > (drawn[:, 0] < 0.4).mean() + 0.05
    end, _ = adapt(old, lambda x, _: x[:, 0] < 0.4, config, 40)
    assert stats.beta(end.a[0], end.b[0]).cdf(0.4) > 0.85


def test_a_small_effective_sample_shrinks_the_step():
    rng, old = np.random.default_rng(0), one(200.0, 200.0)
    drawn = old.sample(40, rng)
    won = np.ones(40, dtype=bool)
    bold = doraemon_step([Batch(old, drawn, won)], DoraemonConfig(trust=2.0, least_ess=0.0))
    careful = doraemon_step([Batch(old, drawn, won)], DoraemonConfig(trust=2.0, least_ess=0.6))
    assert bold.ess < 0.6 * 40 <= careful.ess and careful.trust < bold.trust and careful.kl < bold.kl
    held = doraemon_step([Batch(old, drawn, won)], DoraemonConfig(trust=1e6, least_ess=0.99))
    assert held.outcome == HELD and held.new == old and held.ess == pytest.approx(40)


def test_nothing_succeeds_and_nothing_moves():
    old = one(5.0, 5.0)
    drawn = old.sample(50, np.random.default_rng(0))
    step = doraemon_step([Batch(old, drawn, np.zeros(50, dtype=bool))])
    assert step.outcome == HELD and step.new == old


def test_single_precision_would_lose_small_steps():
    """Divergences of narrow distributions are small differences of large terms."""

    def kl(a, b, a0, b0):
        densities = special.betaln(a0, b0) - special.betaln(a, b)
        moments = (a - a0) * special.psi(a) + (b - b0) * special.psi(b)
        return float(densities + moments + (a0 - a + b0 - b) * special.psi(a + b))

    numbers = (900.0, 920.0, 902.0, 921.0)
    exact = one(*numbers[:2]).kl(one(*numbers[2:]))
    assert kl(*numbers) == pytest.approx(exact, rel=1e-6)
    assert abs(kl(*(np.float32(v) for v in numbers)) - exact) > 0.05 * exact


def test_distributions_start_narrow_with_the_mode_at_the_start():
    betas = Betas.around({"mass": (0.2, 1.0, 5.0), "delay": (0.0, 0.0, 0.15)})
    mode = (np.array(betas.a) - 1) / (np.array(betas.a) + np.array(betas.b) - 2)
    np.testing.assert_allclose(np.array(betas.low) + mode * np.subtract(betas.high, betas.low), [1.0, 0.0])
    assert betas.quantiles(0.95)[1] < 0.01
    tree = betas.as_randomisation()
    assert tree["delay"]["beta"] == {"a": 1.0, "b": 51.0, "low": 0.0, "high": 0.15}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DoraemonConfig(success=1.0), "success"),
        (lambda: DoraemonConfig(trust=0.0), "trust"),
        (lambda: DoraemonConfig(caution=-1.0), "caution"),
        (lambda: DoraemonConfig(least_ess=1.0), "least_ess"),
        (lambda: one(0.5, 2.0), "a, b >= 1"),
        (lambda: one(2.0, 2.0, low=1.0, high=1.0), "low < high"),
        (lambda: Betas(("p", "p"), (0, 0), (1, 1), (1, 1), (1, 1)), "each of the parameters"),
        (lambda: Betas.around({"p": (0.0, 2.0, 1.0)}), "low <= start <= high"),
        (lambda: Batch(one(2, 2), np.zeros((0, 1)), np.zeros(0, dtype=bool)), "n > 0"),
        (lambda: Batch(one(2, 2), np.zeros((3, 2)), np.zeros(3, dtype=bool)), r"\(n, 1\)"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
