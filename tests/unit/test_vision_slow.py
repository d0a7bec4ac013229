"""From pixels to actions, end to end: record, train, evaluate, export."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the simulator is not installed")

from robopolicy.core.errors import MissingDependencyError
from robopolicy.core.horizons import Horizons
from robopolicy.datasets.recorder import record
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.rollout import evaluate
from robopolicy.export.bundle import export_bundle
from robopolicy.export.parity import TOLERANCE
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.policies._saved import load_policy
from robopolicy.policies.diffusion_unet import Config
from robopolicy.runtime import BundlePolicy, load_bundle
from robopolicy.training.train import TrainConfig, train
from robopolicy_sim.experts.lift import LiftExpert
from robopolicy_sim.rendering import create_context
from robopolicy_sim.tasks.lift import LiftEnv

KEYS = ("scene_camera", "wrist_camera", "joint_position", "gripper_opening")
SIZE = (48, 48)


def make_env() -> LiftEnv:
    return LiftEnv(observation_mode="image", image_size=SIZE)


def has_opengl() -> bool:
    try:
        create_context(8, 8).free()
    except MissingDependencyError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_policy_learns_from_cameras_and_leaves_as_a_bundle(tmp_path):
    if not has_opengl():
        pytest.skip("no OpenGL backend: neither EGL nor OSMesa")
    env = make_env()
    store = EpisodeStore.create(tmp_path / "lift.zarr", env.specs)
    expert = LiftExpert(noise=0.005)
    assert record(env, expert, store, range(8)) >= 7
    env.close()
    assert "cube_pose" not in store.specs.observation  # nothing but what a real robot would see
    first = store.read(store.names[0]).observation["scene_camera"].value
    assert first.shape[1:] == (*SIZE, 3) and first.dtype == np.uint8
    assert first.std() > 5 and (first[0] != first[-1]).any()  # a picture, and it moves

    model = Config(
        channels=(16, 32), step_embedding=16, schedule=ScheduleConfig(denoising_steps=5),
        observation=ObservationConfig(vision_channels=(8, 16), keypoints=8),
    )  # fmt: skip
    config = TrainConfig(
        steps=250, batch_size=16, warmup_steps=10, learning_rate=2e-3, keys=KEYS, horizons=Horizons(2, 8, 4),
        threads=1, device="cpu",
    )  # fmt: skip
    train(store.path, tmp_path / "run", policy_config=model, config=config)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] / 2, lines

    parity = export_bundle(tmp_path / "run", tmp_path / "bundle", store=store.path)
    assert parity.max_abs <= TOLERANCE
    bundle = BundlePolicy(load_bundle(tmp_path / "bundle"))
    seeds = [1000, 1001]
    results = evaluate(load_policy(tmp_path / "run"), make_env, seeds, num_envs=2)
    assert [r.seed for r in results] == seeds
    assert all(r.steps >= 1 and not r.unstable and np.isfinite(r.total_reward) for r in results)
    (from_bundle,) = evaluate(bundle, make_env, seeds[:1])
    assert from_bundle.start == results[0].start
