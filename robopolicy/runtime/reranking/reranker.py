"""At every policy call: draw K candidates, judge them, choose one, within the deadline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError, SpecError
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Policy
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.clock import monotonic_ns
from robopolicy.runtime.reranking.choice import Choice, Counters, Values
from robopolicy.runtime.reranking.config import RerankConfig
from robopolicy.runtime.reranking.deadline import Deadline
from robopolicy.runtime.reranking.select import select
from robopolicy.runtime.reranking.situation import Score, Situation

Rng = np.random.Generator
_LONGEST = 200  # characters of another library's message


class Reranker:
    """Chooses among the candidates of any policy, which it neither changes nor looks into.

    Args:
        policy: anything that is one: torch, a bundle, a callable, a served policy.
        scores: each with its weight; their values are added up.
        config: temperature and deadline; ``build_reranker`` looks up the scores that it names.
        clock: monotonic [ns].
    Attributes:
        counters: of all decisions since the start.
    Raises:
        ConfigError: no scores.
    Source: V-GPS (Nakamoto et al. 2024), algorithm 1.
    """

    def __init__(
        self,
        policy: Policy,
        scores: Sequence[tuple[Score, float]],
        config: RerankConfig,
        *,
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        if not scores:
            raise ConfigError("at least one score is needed to choose by")
        self._policy, self._scores, self._clock = policy, tuple(scores), clock
        self._deadline = Deadline(config.deadline_s)
        self.config = config
        self.counters = Counters()

    @property
    def policy_specs(self) -> PolicySpecs:
        """Of the policy."""
        return self._policy.policy_specs

    def choose(
        self,
        observation: Arrays,
        noise: Float32,
        context: Context = NO_CONTEXT,
        rng: Sequence[Rng] = (),
        *,
        binds: bool = True,
    ) -> Choice:
        """One decision for each row of a batch.

        Candidate i depends on noise i alone, so the first is the same for every K. A candidate or a value
        that is not finite is never chosen; a row without any takes the policy's first sample. A single
        candidate is not judged. The deadline cannot cut short a call that has begun, see ``Deadline``. A
        score that fails leaves the row its first sample too: the policy is fine, and the note says why.

        Args:
            observation: each (batch, observation_horizon, *shape), in physical units.
            noise: (batch, K, *noise_shape) standard normal.
            context: instruction, committed prefix and past actions.
            rng: source of randomness of each row; needed by a temperature above 0 and by scores that draw
                themselves.
            binds: whether the policy heeds the prefix; else scores alone see it.
        Raises:
            ConfigError: K = 0; SpecError, ShapeError: an input breaks the specs, or what policy or scores
                give has another shape; whatever the policy raises.
        """
        began_ns = self._clock()
        asked = noise.shape[1] if noise.ndim > 1 else 0
        if asked < 1:
            raise ConfigError(f"num_candidates must be >= 1, got noise of {noise.shape}")
        count = self._deadline.to_draw(asked)
        if len(rng) not in (0, len(noise)) or (not len(rng) and self.config.temperature > 0):
            raise ConfigError(
                f"choosing by chance needs a generator for each of {len(noise)} rows, got {len(rng)}"
            )
        candidates = self._draw(observation, noise[:, :count], context, binds=binds)
        drawn_ns = self._clock()
        scored = self._deadline.to_score(count, drawn_ns - began_ns)
        situation = Situation(self.policy_specs, observation, rng, context)
        scores, total, failures = self._judge(candidates, scored, situation)
        index = select(total, temperature=self.config.temperature, rng=rng)
        ended_ns = self._clock()
        choice = Choice(
            candidates,
            scores,
            total,
            np.maximum(index, 0),
            asked=asked,
            drawn=count,
            scored=scored,
            notes=(),
            draw_ns=drawn_ns - began_ns,
            score_ns=ended_ns - drawn_ns,
            deadline_ns=self._deadline.budget_ns,
        )
        self._measured(choice)
        self.counters += choice.counted()
        return dataclasses.replace(choice, notes=(*failures, *self._notes(choice)))

    def rehearse(
        self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT, *, measure: bool = True
    ) -> None:
        """Draw and judge all candidates, whatever the deadline: to warm up, and to learn what it costs.

        Args:
            measure: whether the time taken tells anything; that of a first call does not.
        Raises:
            as ``choose``, and whatever a score raises.
        """
        began_ns = self._clock()
        candidates = self._draw(observation, noise, context, binds=True)
        drawn_ns = self._clock()
        rngs = tuple(np.random.default_rng(row) for row in range(len(noise)))
        situation = Situation(self.policy_specs, observation, rngs, context)
        self._judge(candidates, noise.shape[1], situation, strict=True)
        if measure:
            self._deadline.draw.add(noise.shape[1], drawn_ns - began_ns)
            if noise.shape[1] > 1:
                self._deadline.score.add(noise.shape[1], self._clock() - drawn_ns)

    def _draw(self, observation: Arrays, noise: Float32, context: Context, *, binds: bool) -> Float32:
        told = context if binds else dataclasses.replace(context, prefix=None)
        candidates = self._policy.sample(observation, noise, told)
        expected = (*noise.shape[:2], *self.policy_specs.chunk_shape)
        if candidates.shape != expected:
            raise ShapeError(f"the policy gave candidates {candidates.shape} instead of {expected}")
        return candidates

    def _judge(
        self, candidates: Float32, scored: int, situation: Situation, *, strict: bool = False
    ) -> tuple[dict[str, Values], Values, list[str]]:
        """Each score, their weighted sum, (batch, drawn), NaN beyond the first ``scored``, and what failed;
        ``strict`` raises that."""
        shape = candidates.shape[:2]
        scores = {score.name: np.full(shape, np.nan) for score, _ in self._scores}
        total, failures = np.full(shape, np.nan), list[str]()
        if scored < 2:
            return scores, total, failures
        judged = candidates[:, :scored]
        total[:, :scored] = np.where(np.isfinite(judged).all(axis=(2, 3)), 0.0, np.nan)
        for score, weight in self._scores:
            try:
                values = _asked(score, judged, situation)
            except (ShapeError, SpecError, ConfigError):
                raise
            except NonFiniteValueError:  # it could not judge any of them; the note says so
                values = np.full(judged.shape[:2], np.nan)
            except Exception as error:  # an engine's, or a user's
                if strict:
                    raise
                failures.append(_told(score, error))
                values = np.full(judged.shape[:2], np.nan)
            scores[score.name][:, :scored] = values
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is never chosen
                total[:, :scored] += weight * values
        return scores, total, failures

    def _measured(self, choice: Choice) -> None:
        if self._deadline.on:
            self._deadline.draw.add(choice.drawn, choice.draw_ns)
            if choice.scored > 1:
                self._deadline.score.add(choice.scored, choice.score_ns)
            elif choice.asked > 1:
                self._deadline.score.left_out()

    def _notes(self, choice: Choice) -> list[str]:
        """What was not as asked for."""
        asked, drawn, scored, budget_ms = choice.asked, choice.drawn, choice.scored, choice.deadline_ns * 1e-6
        counts, notes = choice.counted(), list[str]()
        if drawn < asked:
            expected_ms = self._deadline.predicted_ns(asked) * 1e-6
            why = f"all would take {expected_ms:.1f} of {budget_ms:g} ms"
            if expected_ms <= budget_ms:
                why = "judging was left out for long, and is begun again with few"
            notes.append(f"{drawn} of {asked} candidates drawn: {why}")
        if scored < drawn:
            judged = f"{scored} of {drawn} candidates judged" if scored > 1 else "no candidate judged"
            notes.append(f"{judged}: drawing took {choice.draw_ns * 1e-6:.1f} of {budget_ms:g} ms")
        if counts.late:
            taken_ms = (choice.draw_ns + choice.score_ns) * 1e-6
            notes.append(f"late: {taken_ms:.1f} of {budget_ms:g} ms")
        if counts.nan_rows:
            notes.append(
                f"no candidate has a value in {counts.nan_rows} of {counts.decisions} rows: the first"
            )
        elif counts.nan_candidates:
            judged_count = counts.decisions * scored
            notes.append(f"{counts.nan_candidates} of {judged_count} candidates have no value")
        return notes


def _asked(score: Score, judged: Float32, situation: Situation) -> Values:
    """(batch, n); NaN for what is not finite: infinities of two scores would cancel."""
    values = np.asarray(score(judged, situation), np.float64)
    if values.shape != judged.shape[:2]:
        raise ShapeError(f"score {score.name!r} gave {values.shape} instead of {judged.shape[:2]}")
    return np.where(np.isfinite(values), values, np.nan)


def _told(score: Score, error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
    return f"score {score.name!r} failed: {text}"
