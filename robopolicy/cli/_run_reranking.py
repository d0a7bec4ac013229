"""``robopolicy run --candidates K --select ...``: what the inference process needs to choose."""

from __future__ import annotations

from typing import Any

from robopolicy.cli._selection import Asked, no_critic, rerank_config
from robopolicy.core.errors import SpecError
from robopolicy.runtime import Bundle, RerankConfig, load_bundle
from robopolicy.runtime.inference.worker_client import Endpoint
from robopolicy.runtime.reranking.build import build_scores, check_noise
from robopolicy.runtime.reranking.config import CRITIC
from robopolicy.runtime.reranking.pairing import check_pairing

_DEADLINE = 0.8  # of a policy period; the rest is for the loop to take it up


def reranking(endpoint: Endpoint, asked: Asked) -> dict[str, Any]:
    """Fields of ``WorkerConfig``; empty where the first candidate is to be executed.

    Raises:
        ConfigError: see ``rerank_config``; SpecError: policy and critic do not fit, both are printed, or the
            critic follows instructions and there is none; UnknownNameError: no such score.
    """
    specs = endpoint.policy_specs
    here = endpoint if isinstance(endpoint, Bundle) else None
    config = rerank_config(
        asked,
        own_critic=here is not None and here.critic is not None,
        most=None if isinstance(endpoint, Bundle) else endpoint.max_candidates,
        deadline_s=_DEADLINE / specs.specs.policy_rate,
    )
    if config is None:
        return {}
    check_noise(specs, config.num_candidates)
    for chosen in config.scores:  # a formula that is wrong is said here, not by the worker
        if chosen.name != CRITIC:
            build_scores(RerankConfig(scores=(chosen,)), specs)
    if not config.needs_critic:
        return {"reranking": config}
    judge = here if asked.critic is None else load_bundle(asked.critic)
    if judge is None or judge.critic is None:
        raise no_critic(
            "the policy comes with" if asked.critic is None else f"the bundle in {asked.critic} has"
        )
    check_pairing(
        specs,
        judge.critic.specs,
        normalisers=here.normalisers if here is not None else None,
        critic_normalisers=judge.critic.normalisers,
    )
    if judge.critic.specs.instruction_dim and not asked.instruction.strip():
        raise SpecError("the critic follows instructions and got none; say what to do: --instruction TEXT")
    if asked.critic is None:
        return {"reranking": config}
    return {"reranking": config, "critic": str(asked.critic.resolve()), "critic_digest": judge.digest}


def describe(summary: dict[str, Any]) -> str:
    """The choices of a run, in one line."""
    counts = summary["decisions"]
    return (
        f"{counts['decisions']} decisions among {summary['mean_drawn']:.1f} candidates on average, "
        f"{summary['share_other_than_first']:.0%} for another than the first; drawing p50 "
        f"{summary['draw_p50_ms']:.1f}, scoring {summary['score_p50_ms']:.1f} ms; {counts['fall_backs']} "
        f"fall-backs ({counts['fewer_drawn']} drew fewer, {counts['fewer_scored']} judged fewer, "
        f"{counts['nan_rows']} without any value), {counts['late']} late; "
        f"candidates kept: {summary['candidates_mb']:.2f} MB"
    )
