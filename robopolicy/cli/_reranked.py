"""``robopolicy eval --candidates K --select ...``: the policy with a choice among its candidates."""

from __future__ import annotations

from pathlib import Path

from robopolicy.cli._selection import Asked, no_critic, rerank_config
from robopolicy.core.critic import Critic
from robopolicy.core.policy import Policy
from robopolicy.evaluation.reranked import EvaluatedSelection


def reranked(policy: Policy, asked: Asked, *, threads: int = 1) -> EvaluatedSelection | None:
    """None where the first sample is taken, as without ``--candidates``.

    Raises:
        ConfigError: see ``rerank_config``; SpecError: policy and critic do not fit, or there is none.
    """
    own = bool(getattr(policy, "has_critic", False))
    config = rerank_config(asked, own_critic=own, most=getattr(policy, "max_candidates", None))
    if config is None:
        return None
    found, label = _critic_of(policy, asked.critic, threads) if config.needs_critic else (None, "")
    return EvaluatedSelection(policy, config, critic=found, critic_label=label)


def _critic_of(policy: Policy, path: Path | None, threads: int) -> tuple[Critic, str]:
    """That of ``--critic``, else the one in the policy's bundle; and its name."""
    if path is None:
        from robopolicy.runtime.bundle.policy import BundlePolicy

        if isinstance(policy, BundlePolicy) and policy.has_critic:
            return policy, "of the policy's bundle"
        raise no_critic("the policy comes with")
    return load_any_critic(path, threads), str(path)


def load_any_critic(path: Path, threads: int = 1) -> Critic:
    """A torch critic, or that of a bundle, whichever lies there.

    Raises:
        SpecError: a bundle without a critic; RobopolicyError: nothing there.
    """
    if (path / "manifest.json").is_file():
        from robopolicy.runtime.bundle.directory import load_bundle
        from robopolicy.runtime.bundle.policy import BundlePolicy

        bundle = load_bundle(path)
        if bundle.critic is None:
            raise no_critic(f"the bundle in {path} has")
        return BundlePolicy(bundle, threads=threads, only="critic")
    import torch

    from robopolicy.steering._saved import load_critic

    torch.set_num_threads(threads)
    return load_critic(path)
