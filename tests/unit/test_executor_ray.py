"""The same evaluation on a Ray cluster of two nodes on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from walking import Still, Walk

pytest.importorskip("ray", reason="ray is not installed: pip install 'robopolicy[ray]'")

import ray
from ray.cluster_utils import Cluster

from robopolicy.core.errors import WorkerError
from robopolicy.evaluation.executors.ray import RayExecutor
from robopolicy.evaluation.rollout import evaluate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its nodes' pipes open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SEEDS = [7, 3, 100, 4, 12, 5]


class Faulty(Walk):
    def step(self, action):
        raise RuntimeError("a wheel came off")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each, so that two actors cannot share a node."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    tests = str(Path(__file__).parents[1])
    environment = {"env_vars": {"PYTHONPATH": f"{tests}:{tests}/unit"}}
    ray.init(address=made.address, runtime_env=environment, log_to_driver=False, configure_logging=False)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def alone():
    return evaluate(Still(), Walk, SEEDS)


def test_two_nodes_give_the_same_results(cluster, alone):
    assert evaluate(Still(), Walk, SEEDS, num_envs=4, executor="ray", workers=2) == alone


def test_the_environments_live_on_both_nodes(cluster):
    executor = RayExecutor(Walk, Still.policy_specs, 2)
    try:
        assert len(set(executor.nodes())) == 2
    finally:
        executor.close()


def test_a_killed_actor_costs_its_episodes_a_restart(cluster, alone, monkeypatch):
    started = []
    original = RayExecutor._start
    monkeypatch.setattr(RayExecutor, "_start", lambda self: started.append(original(self)) or started[-1])

    def kill_once(result):
        if len(started) == 2:
            ray.kill(started[0])

    found = evaluate(Still(), Walk, SEEDS, num_envs=4, executor="ray", workers=2, on_episode=kill_once)
    assert len(started) == 3
    assert [replace(r, restarts=0) for r in found] == alone
    assert sum(r.restarts for r in found) >= 1


def test_an_error_in_an_environment_comes_back(cluster):
    with pytest.raises(WorkerError, match="a wheel came off"):
        evaluate(Still(), Faulty, SEEDS, executor="ray", workers=2)
