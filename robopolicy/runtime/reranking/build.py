"""A reranker from settings: scores looked up by file name, policy and critic held against one another."""

from __future__ import annotations

from collections.abc import Callable

from robopolicy.core.critic import Critic
from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import Policy
from robopolicy.core.robot import Robot
from robopolicy.core.serial import from_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.clock import monotonic_ns
from robopolicy.runtime.reranking.config import RerankConfig
from robopolicy.runtime.reranking.pairing import check_pairing
from robopolicy.runtime.reranking.reranker import Reranker
from robopolicy.runtime.reranking.scores import score_module
from robopolicy.runtime.reranking.situation import Score


def build_reranker(
    policy: Policy,
    config: RerankConfig,
    *,
    critic: Critic | None = None,
    robot: Robot | None = None,
    clock: Callable[[], int] = monotonic_ns,
) -> Reranker:
    """Anything that is a policy, with the scores that the settings name.

    Its attribute ``normalisers`` is held against the critic's; a served policy or a callable has none, and
    they are not compared then.

    Args:
        critic: needed by the score "critic" alone; may come from other episodes than the policy.
        robot: needed by scores that know the arm.
        clock: monotonic [ns].
    Raises:
        UnknownNameError: no such score; lists the known.
        SpecError: policy and critic do not fit, a score lacks what it needs, or has no such option.
        ConfigError: several candidates of a policy that draws no noise.
    """
    specs = policy.policy_specs
    check_noise(specs, config.num_candidates)
    if critic is not None and config.needs_critic:
        check_pairing(
            specs,
            critic.critic_specs,
            normalisers=getattr(policy, "normalisers", None),
            critic_normalisers=critic.critic_normalisers,
        )
    scores = build_scores(config, specs, robot=robot, critic=critic)
    return Reranker(policy, scores, config, clock=clock)


def check_noise(specs: PolicySpecs, num_candidates: int) -> None:
    """ConfigError where candidates would all be the same, at as many times the cost."""
    if 0 in specs.noise_shape and num_candidates > 1:
        raise ConfigError(
            f"the policy draws no noise, its noise_shape is {specs.noise_shape}: its {num_candidates} "
            "candidates would all be the same"
        )


def build_scores(
    config: RerankConfig, specs: PolicySpecs, *, robot: Robot | None = None, critic: Critic | None = None
) -> list[tuple[Score, float]]:
    """Each score with its weight."""
    found: list[tuple[Score, float]] = []
    for chosen in config.scores:
        module = score_module(chosen.name)
        options = from_tree(module.Config, dict(chosen.options), f"score {chosen.name}")
        found.append((module.build(options, specs, robot=robot, critic=critic), chosen.weight))
    return found
