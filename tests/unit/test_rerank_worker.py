"""Reranking in a process of its own: the same choice as here, and a refusal that prints both sides."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from reranked import FakeClock
from stepping import critic_normalisers, step_specs, write_step_bundle
from test_faults_processes import python_that
from test_runtime_support import tiny_window

from robopolicy.cli._run_reranking import reranking
from robopolicy.cli._selection import Asked
from robopolicy.core.errors import ConfigError, SpecError, WorkerError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Affine
from robopolicy.core.serial import to_tree
from robopolicy.runtime import (
    Bundle,
    BundlePolicy,
    LocalClient,
    Request,
    RerankConfig,
    Response,
    ScoreConfig,
    WorkerClient,
    WorkerConfig,
    build_reranker,
)
from robopolicy.runtime.inference import worker as process
from robopolicy.runtime.inference.channel import Channel, Layout
from robopolicy.runtime.inference.shared_memory import create
from robopolicy.runtime.inference.warm_up import warm_up_reranker

ROOT = Path(__file__).parents[2]
CONFIG = RerankConfig(6, (ScoreConfig("critic"), ScoreConfig("random_pick", 0.01)))
SERVER = """
import asyncio, sys
from robopolicy.runtime import BundlePolicy, load_bundle
from robopolicy.runtime.remote import PolicyServer
policy = BundlePolicy(load_bundle(sys.argv[1]))
server = PolicyServer(policy, digest=policy.digest)
asyncio.run(server.run(asyncio.Event(), lambda url: print(url, flush=True)))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_step_bundle(tmp_path_factory.mktemp("bundles") / "with", critic=True)


def worker(**changes) -> WorkerConfig:
    return WorkerConfig(provider="cpu", max_candidates=6, warmup=2, **changes)


def request(bundle: Bundle, step: int = 0, **changes) -> Request:
    specs = bundle.policy_specs
    rng = np.random.default_rng(step)
    given = {
        "prefix": (rng.normal(size=specs.chunk_shape).astype(np.float32), np.ones(8, np.float32)),
        "past": np.full((1, 3), 0.25, np.float32),
        "binds": False,
        **changes,
    }
    return Request(tiny_window(specs, rng), 123, (7, 1, step), 6, **given)


def wait_for(client: WorkerClient, request_id: int) -> Response:
    for _ in range(4000):
        response = client.poll(time.monotonic_ns())
        if response is not None and response.request_id == request_id:
            return response
        time.sleep(0.005)
    raise AssertionError("no answer within 20 s")


def same(found: Response, expected: Response) -> None:
    np.testing.assert_array_equal(found.candidates, expected.candidates)
    np.testing.assert_array_equal(found.values, expected.values)
    for name in ("index", "asked", "scored", "note", "error"):
        assert getattr(found, name) == getattr(expected, name)


def here(bundle: Bundle, config: RerankConfig = CONFIG) -> LocalClient:
    policy = BundlePolicy(bundle)
    return LocalClient(policy, reranker=build_reranker(policy, config, critic=policy))


def test_the_worker_chooses_as_one_would_here(bundle: Bundle) -> None:
    local, indices = here(bundle), []
    with WorkerClient(bundle, worker(reranking=CONFIG)) as client:
        for step in range(4):
            asked = request(bundle, step)
            found = wait_for(client, client.request(asked))
            local.request(asked)
            expected = local.poll(0)
            assert expected is not None and found.candidates is not None
            same(found, expected)
            assert found.draw_ns > 0 and found.score_ns > 0
            np.testing.assert_array_equal(found.chosen, found.candidates[found.index])
            indices.append(found.index)
    assert len(set(indices)) > 1


def test_a_critic_of_another_bundle_pinned_by_its_digest(bundle: Bundle, tmp_path: Path) -> None:
    bare = write_step_bundle(tmp_path / "bare")
    config = worker(reranking=CONFIG, critic=str(bundle.directory), critic_digest=bundle.digest)
    with WorkerClient(bare, config) as client:
        found = wait_for(client, client.request(request(bare)))
    local = here(bundle)
    local.request(request(bundle))
    expected = local.poll(0)
    assert expected is not None
    same(found, expected)
    wrong = dataclasses.replace(config, critic_digest="0" * 64)
    with pytest.raises(WorkerError, match=r"(.*\n)*.*digest"):
        WorkerClient(bare, wrong)
    with pytest.raises(ConfigError, match="critic_digest ''"):
        worker(critic="somewhere")
    with pytest.raises(ConfigError, match="draws 7 candidates, max_candidates is 6"):
        worker(reranking=RerankConfig(7))


def test_a_served_policy_with_a_critic_from_here(bundle: Bundle, tmp_path: Path) -> None:
    from robopolicy.runtime.remote import connect

    bare = write_step_bundle(tmp_path / "bare")
    command = [sys.executable, "-c", SERVER, str(bare.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stdout is not None
            endpoint = connect(server.stdout.readline().strip())
            config = worker(
                reranking=CONFIG,
                critic=str(bundle.directory),
                critic_digest=bundle.digest,
                request_timeout_s=10.0,
            )
            with WorkerClient(endpoint, config) as client:
                found = wait_for(client, client.request(request(bare)))
        finally:
            server.kill()
    local = here(bundle)
    local.request(request(bundle))
    expected = local.poll(0)
    assert expected is not None
    same(found, expected)


def test_what_does_not_fit_is_refused_before_anything_starts(bundle: Bundle, tmp_path: Path) -> None:
    moved = dataclasses.replace(critic_normalisers(step_specs()), action=Affine((9.0,) * 3, (0.5,) * 3))
    other = write_step_bundle(tmp_path / "other", critic=True, critic_normalisers=moved)
    bare = write_step_bundle(tmp_path / "bare")
    with pytest.raises(SpecError, match=r"'a' ranges over -0\.5\.\.0\.5 in the policy's, 8\.5\.\.9\.5"):
        reranking(other, Asked(6, ("critic",)))
    with pytest.raises(SpecError, match="the policy comes with no critic"):
        reranking(bare, Asked(6, ("critic",)))
    with pytest.raises(ConfigError, match="6 candidates and nothing to choose by: --select, or --critic"):
        reranking(bare, Asked(6))
    assert reranking(bare, Asked()) == reranking(bundle, Asked()) == {}
    chosen = reranking(bundle, Asked(6))["reranking"]
    assert chosen.scores == (ScoreConfig("critic"),) and chosen.deadline_s == pytest.approx(0.08)
    given = reranking(bare, Asked(6, critic=bundle.directory, deadline_ms=0))
    assert given["critic_digest"] == bundle.digest and given["reranking"].deadline_s == 0
    for settings in ({"select": ("critic",)}, {"temperature": 0.5}, {"deadline_ms": 50.0}):
        name = next(iter(settings)).replace("_", "-")
        with pytest.raises(ConfigError, match=f"--{name} chooses among candidates: give their number"):
            reranking(bundle, Asked(**settings))
    with pytest.raises(ConfigError, match="is not asked"):
        reranking(bare, Asked(6, ("random_pick",), critic=bundle.directory))


def test_everything_of_a_request_and_of_a_choice_travels(bundle: Bundle) -> None:
    layout = Layout(bundle.policy_specs, 6)
    segment = create(layout.size)
    try:
        parent, child = Channel(segment, layout), Channel(segment, layout)
        sent = request(bundle)
        parent.send_request(1, sent)
        received = child.receive_request()
        assert received is not None and not received[1].binds
        np.testing.assert_array_equal(received[1].past, sent.past)
        with pytest.raises(Exception, match=r"past must be \(1, 3\), got \(3,\)"):
            parent.send_request(2, request(bundle, past=np.zeros(3, np.float32)))
        chunks = np.ones((4, 8, 3), np.float32)
        values = np.array([1.0, np.nan, -1e9, 2.0])
        given = Response(
            1,
            5,
            chunks,
            9,
            index=3,
            values=values,
            asked=6,
            scored=3,
            note="why",
            draw_ns=5,
            score_ns=4,
            deadline_ns=8,
        )
        child.send_response(given)
        back = parent.receive_response()
        assert back is not None
        same(back, given)
        assert (back.draw_ns, back.score_ns, back.deadline_ns) == (5, 4, 8)
        assert back.candidates is not None and back.values is not None
        assert back.candidates.base is None and back.values.base is None  # not the whole record
        del received, back
    finally:
        del parent, child
        segment.close()
        segment.unlink()


def test_the_warm_up_goes_the_whole_way_on_every_rung(bundle: Bundle) -> None:
    policy = BundlePolicy(bundle)
    reranker = build_reranker(policy, dataclasses.replace(CONFIG, deadline_s=60.0), critic=policy)
    assert warm_up_reranker(reranker, 3, 6) > 0
    assert sorted(reranker._deadline.draw._first) == [1, 3, 6]
    assert sorted(reranker._deadline.score._first) == [3, 6]
    assert reranker.counters.decisions == 0
    unhurried = build_reranker(policy, CONFIG, critic=policy)
    assert warm_up_reranker(unhurried, 3, 6) > 0
    assert sorted(unhurried._deadline.draw._first) == [6]  # without a deadline nothing else is ever drawn


def test_the_warm_up_leaves_out_what_can_never_be_in_time(bundle: Bundle) -> None:
    policy = BundlePolicy(bundle)
    usual, slow, clock = policy.sample, dataclasses.replace(CONFIG, deadline_s=0.005), FakeClock()

    def sample(observation, noise, context):
        clock.now_ns += 4_000_000 * noise.shape[1]  # 3 take 12 ms, twice the deadline and more
        return usual(observation, noise, context)

    policy.sample = sample
    reranker = build_reranker(policy, slow, critic=policy, clock=clock)
    assert warm_up_reranker(reranker, 2, 6, clock=clock) == 12_000_000
    assert sorted(reranker._deadline.draw._first) == [1, 3]
    assert reranker._deadline.predicted_ns(6) > reranker._deadline.predicted_ns(3) > 5e6


def test_a_chunk_that_begins_now_has_no_past_to_send() -> None:
    specs = dataclasses.replace(step_specs(), horizons=Horizons(1, 8, 4))
    layout = Layout(specs, 2)
    segment = create(layout.size)
    try:
        parent, child = Channel(segment, layout), Channel(segment, layout)
        window = tiny_window(specs, np.random.default_rng(0))
        parent.send_request(1, Request(window, 5, (1, 2, 3), 2, past=np.zeros((0, 3), np.float32)))
        received = child.receive_request()
        assert received is not None and received[1].past is not None and received[1].past.shape == (0, 3)
        del received
    finally:
        del parent, child
        segment.close()
        segment.unlink()


@pytest.mark.parametrize(
    ("gives", "said"), [("nan", ""), ("raises", "score 'critic' failed: RuntimeError: ")]
)
def test_a_critic_that_breaks_stops_no_arm(bundle: Bundle, tmp_path: Path, gives: str, said: str) -> None:
    """Only once it is asked of a robot, not in the warm-up; the worker goes on."""
    python = python_that(
        tmp_path,
        f"""
        import numpy as np
        usual = worker.BundlePolicy.values
        def values(self, observation, candidates, context):
            found = usual(self, observation, candidates, context)
            if not any(value.any() for value in observation.values()):
                return found
            if {gives!r} == "raises":
                raise RuntimeError("the engine is gone")
            return np.full_like(found, np.nan)
        worker.BundlePolicy.values = values
        """,
    )
    only = RerankConfig(6)
    with WorkerClient(bundle, worker(reranking=only, python=python)) as client:
        for step in range(2):
            found = wait_for(client, client.request(request(bundle, step)))
            assert found.error == "" and found.index == 0 and found.scored == 6
            assert found.values is not None and np.isnan(found.values).all()
            assert found.note.startswith(said) and "no candidate has a value in 1 of 1 rows" in found.note
            assert found.candidates is not None and np.isfinite(found.chosen).all()


def test_a_choice_that_fits_its_deadline_is_not_taken_for_a_hang(bundle: Bundle) -> None:
    config = worker(reranking=dataclasses.replace(CONFIG, deadline_s=0.5))
    with WorkerClient(bundle, config, wait=False) as client:
        for _ in range(60):
            client._watch.measured(1_000_000)  # one candidate each
        assert client._watch.hang_ns == 1_500_000_000 and client.num_candidates == 6
        assert client._watch._varies
    with WorkerClient(bundle, worker(), wait=False) as client:
        assert client._watch.hang_ns < 500_000_000 and client.num_candidates is None


def test_what_nobody_asks_is_not_loaded(bundle: Bundle, tmp_path: Path) -> None:
    given = ["--bundle", str(bundle.directory), "--digest", bundle.digest, "--segment", "s", "--layout", "l"]
    given += ["--max-candidates", "6", "--heartbeat-s", "1", "--request-timeout-s", "1", "--provider", "cpu"]

    def loaded(scores: tuple[ScoreConfig, ...], *more: str) -> tuple[set[str], Any]:
        config = json.dumps(to_tree(RerankConfig(6, scores)))
        policy, reranker = process._policy(process._parse([*given, "--reranking", config, *more]))
        assert reranker is not None
        return set(policy._backends), reranker._scores[0][0]

    drawing, judging = {"encoder", "step"}, {"critic_encoder", "critic"}
    assert loaded((ScoreConfig("random_pick"),))[0] == drawing
    assert loaded((ScoreConfig("critic"),))[0] == drawing | judging
    other = ("--critic", str(bundle.directory), "--critic-digest", bundle.digest)
    roles, score = loaded((ScoreConfig("critic"),), *other)
    assert roles == drawing and set(score._critic._backends) == judging
    with pytest.raises(SpecError, match="the critic alone was loaded"):
        score._critic.sample({}, np.zeros((1, 1, 8, 3), np.float32))
    without = BundlePolicy(bundle, provider="cpu", only="policy")
    assert not without.has_critic and without.provider == "CPUExecutionProvider"
    with pytest.raises(SpecError, match="no critic"):
        without.critic_specs  # noqa: B018


def test_a_critic_that_gets_no_instruction_is_refused_at_the_start(bundle: Bundle) -> None:
    assert bundle.critic is not None
    specs = dataclasses.replace(bundle.critic.specs, instruction_dim=4)
    told = dataclasses.replace(bundle, critic=dataclasses.replace(bundle.critic, specs=specs))
    with pytest.raises(SpecError, match=r"critic follows instructions and got none.*--instruction TEXT"):
        reranking(told, Asked(6))
    assert reranking(told, Asked(6, instruction="lift it"))["reranking"].num_candidates == 6
    blind = dataclasses.replace(bundle.policy_specs, noise_shape=(0,))
    with pytest.raises(ConfigError, match="draws no noise"):
        reranking(dataclasses.replace(bundle, policy_specs=blind), Asked(6))
