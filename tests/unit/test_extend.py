"""A task added to a policy leaves the old ones as they were, to the last bit, also in ONNX."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import make_episode, make_policy_specs, make_specs, make_windows

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.horizons import Horizons
from robopolicy.core.language import INSTRUCTION
from robopolicy.core.policy import Context, keyed_rng
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows
from robopolicy.export.onnx import export_graphs
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.policy_module import TorchPolicy
from robopolicy.policies import diffusion_transformer, sdp
from robopolicy.policies._saved import load_policy
from robopolicy.training.extend import ExtendConfig, outside_lines, unchanged
from robopolicy.training.train import TrainConfig, train

pytestmark = pytest.mark.usefixtures("one_thread")
SPECS = make_specs()
OLD, NEW = ("push the block", "open the drawer"), "press the button"
TINY = sdp.Config(
    dim=16, layers=1, heads=2, expert_hidden=16,
    schedule=ScheduleConfig(training_steps=20, denoising_steps=3),
)  # fmt: skip
SHORT = TrainConfig(
    steps=8, batch_size=16, warmup_steps=2, learning_rate=3e-3, horizons=Horizons(2, 8, 4), threads=1,
    device="cpu", instruction="words", trackers=(), weight_decay=0.1,
)  # fmt: skip


def make_store(folder: Path, instruction: str, specs=SPECS, scale: float = 1.0) -> str:
    store = EpisodeStore.create(folder, specs)
    for seed in range(2):
        episode = make_episode(specs, 20, seed, instruction=instruction)
        action = dataclasses.replace(episode.action, value=scale * episode.action.value)
        store.append(dataclasses.replace(episode, action=action))
    return str(folder)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("stores")
    return {name: make_store(folder / f"{i}.zarr", name) for i, name in enumerate((*OLD, NEW))}


@pytest.fixture(scope="module")
def old(stores, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("old") / "run"
    train([stores[name] for name in OLD], output, family="sdp", policy_config=TINY, config=SHORT)
    return output


def extend(run: Path, store: str, output: Path, experts: int = 2, **changes: Any) -> Path:
    config = dataclasses.replace(
        SHORT, extend=ExtendConfig(str(run), experts), **{"instruction": "", **changes}
    )
    train(store, output, config=config)
    return output


@pytest.fixture(scope="module")
def new(old, stores, tmp_path_factory) -> Path:
    return extend(old, stores[NEW], tmp_path_factory.mktemp("new") / "run")


def chunks(policy: TorchPolicy, instruction: str) -> np.ndarray:
    noise = keyed_rng(0).standard_normal((3, 4, *policy.policy_specs.noise_shape), dtype=np.float32)
    return policy.sample(make_windows(policy.policy_specs, 3), noise, Context((instruction,)))


def test_everything_old_is_frozen_bit_for_bit(old, new):
    before, after = (load_policy(run).module for run in (old, new))
    assert unchanged(before.state_dict(), after.state_dict())
    assert after.config.tasks == (*OLD, NEW) and after.config.added == (2,)
    assert set(after.state_dict()) - set(before.state_dict()) == {
        "routers.logits.2",
        "denoiser.network.blocks.0.feed_forward.stages.1.inward",
        "denoiser.network.blocks.0.feed_forward.stages.1.outward",
    }


@pytest.mark.parametrize("instruction", [*OLD, "shove the block", "pull the drawer open"])
def test_old_tasks_get_exactly_the_same_chunks(old, new, instruction):
    before, after = (chunks(load_policy(run), instruction) for run in (old, new))
    np.testing.assert_array_equal(before, after)


def test_the_new_task_is_trained(old, new):
    policy = load_policy(new)
    usage = policy.module.expert_usage()
    assert (usage[:, 2, 8:] > 0).any() and (usage[:, :2, 8:] == 0).all()
    assert (chunks(policy, NEW) != chunks(policy, OLD[0])).any()
    untrained = load_policy(old).module
    torch.manual_seed(SHORT.seed)
    fresh = sdp.build(policy.module.config, policy.policy_specs)
    fresh.take_from(untrained.state_dict(), [policy.module.finder.prototypes[2:]])
    assert not torch.equal(fresh.routers.logits[2], policy.module.routers.logits[2])


def test_old_tasks_get_exactly_the_same_chunks_in_onnx(old, new):
    import onnxruntime

    found = []
    words = load_policy(old).text_encoder.encode(list(OLD))
    for run in (old, new):
        module = load_policy(run).module
        graphs = export_graphs(module, form="unrolled")
        sessions = {role: onnxruntime.InferenceSession(graph) for role, graph in graphs.items()}
        for rows in ([0], [1, 1], [0, 1]):
            rng = keyed_rng(len(rows))
            seen = {
                name: rng.standard_normal((len(rows), 2, spec.num_features), dtype=np.float32)
                for name, spec in SPECS.observation.items()
            }
            condition = sessions["encoder"].run(None, {**seen, INSTRUCTION: words[rows]})[0]
            noise = rng.standard_normal((len(rows), *module.policy_specs.chunk_shape), dtype=np.float32)
            bound = {"prefix": np.zeros_like(noise), "prefix_weight": np.zeros(noise.shape[:2], np.float32)}
            found.append(
                sessions["sampler"].run(None, {"noise": noise, "conditioning": condition, **bound})[0]
            )
    for before, after in zip(found[:3], found[3:]):
        np.testing.assert_array_equal(before, after)


def test_tasks_are_added_one_after_the_other_and_may_bring_no_experts(new, stores, tmp_path):
    store = make_store(tmp_path / "s.zarr", "lift the cube")
    grown = extend(new, store, tmp_path / "run", experts=0)
    before, after = load_policy(new), load_policy(grown)
    assert unchanged(before.module.state_dict(), after.module.state_dict())
    assert set(after.module.state_dict()) - set(before.module.state_dict()) == {"routers.logits.3"}
    for instruction in (*OLD, NEW):
        np.testing.assert_array_equal(chunks(before, instruction), chunks(after, instruction))


def test_the_run_says_what_was_added(old, stores, tmp_path, capsys):
    extend(old, stores[NEW], tmp_path / "run", steps=1)
    said = " ".join(capsys.readouterr().out.split())
    added = 2 * 2 * 16 * 16 + 10
    assert f"['{NEW}'] added to {list(OLD)}: {added:,} new parameters" in said


def test_an_extension_can_be_interrupted_and_resumed(old, stores, tmp_path, monkeypatch):
    from robopolicy.training import train as module
    from robopolicy.training.loop import Loop

    whole = extend(old, stores[NEW], tmp_path / "whole", save_every=4)
    real = Loop._train

    def break_off(self):
        if self.position.step == 6:
            raise KeyboardInterrupt
        real(self)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Loop, "_train", break_off)
        extend(old, stores[NEW], tmp_path / "parts", save_every=4)
    module.resume(tmp_path / "parts")
    first, second = (load_policy(run).module.state_dict() for run in (whole, tmp_path / "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_values_beyond_the_old_range_are_reported(old, tmp_path):
    wide = EpisodeStore.open(make_store(tmp_path / "wide.zarr", NEW, scale=2.0))
    lines = outside_lines(
        load_policy(old).normalisers, Windows(wide, SHORT.horizons, tuple(SPECS.observation))
    )
    assert len(lines) == 1 and "% of 'action' is outside [-1.2, 1.2]" in lines[0]
    assert "cannot be learnt" in lines[0]


def test_other_specs_are_refused_by_what_differs(old, tmp_path):
    slower = dataclasses.replace(SPECS, policy_rate=5.0)
    store = make_store(tmp_path / "s.zarr", NEW, slower)
    with pytest.raises(SpecError, match=r"policy_rate is 5\.0 in the demonstrations and 10\.0 in the policy"):
        extend(old, store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_extended_is_refused(old, stores, tmp_path):
    with pytest.raises(ConfigError, match="already knows the tasks"):
        extend(old, stores[OLD[0]], tmp_path / "run")
    with pytest.raises(ConfigError, match=r"extend\.experts must be >= 0"):
        ExtendConfig("x", -1)
    with pytest.raises(ConfigError, match="choose one of"):
        finetune = dataclasses.replace(SHORT.finetune, run=str(old))
        extend(old, stores[NEW], tmp_path / "run", finetune=finetune)
    silent = dataclasses.replace(SHORT, instruction="", steps=1)
    train(stores[NEW], tmp_path / "silent", family="sdp", policy_config=TINY, config=silent)
    with pytest.raises(ConfigError, match="trained without instructions"):
        extend(tmp_path / "silent", stores[NEW], tmp_path / "run")
    dense = diffusion_transformer.Config(dim=32, layers=1, heads=2, schedule=TINY.schedule)
    one = dataclasses.replace(SHORT, steps=1)
    train(stores[NEW], tmp_path / "dense", family="diffusion_transformer", policy_config=dense, config=one)
    with pytest.raises(ConfigError, match=r"family 'diffusion_transformer', but to \['sdp'\]"):
        extend(tmp_path / "dense", stores[NEW], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 33])
@pytest.mark.parametrize(("dim", "layers"), [(16, 1), (32, 2), (128, 2)])
def test_the_number_of_experts_changes_no_rounding(dim, layers, rows):
    """Untrained: rows of old tasks among more experts and tasks, in batches of many sizes."""
    specs = dataclasses.replace(make_policy_specs(), instruction_dim=6)
    config = dataclasses.replace(TINY, dim=dim, layers=layers, expert_hidden=2 * dim, tasks=OLD)
    torch.manual_seed(0)
    before = sdp.build(config, specs)
    with torch.no_grad():
        for weight in before.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    before.set_instructions([torch.eye(6)[:1], torch.eye(6)[1:2]])
    after = sdp.build(sdp.with_added(config, [NEW], 3), specs)
    after.take_from(before.state_dict(), [torch.eye(6)[2:3]])
    seen = {name: torch.randn(rows, 2, spec.num_features) for name, spec in specs.specs.observation.items()}
    seen[INSTRUCTION] = torch.eye(6)[[row % 2 for row in range(rows)]]
    noise = torch.randn(2 * rows, *specs.chunk_shape)
    found = []
    for module in (before.eval(), after.eval()):
        with torch.no_grad():
            prepared = module.prepare(module.encode(seen)).repeat_interleave(2, dim=0)
            found.append(module.sample(prepared, noise))
    assert torch.equal(*found)


def test_a_task_that_takes_a_phrasing_of_an_old_one_is_refused(stores, tmp_path):
    """Also where the old phrasings are not given again: the policy keeps them."""
    ways = tmp_path / "ways.yaml"
    ways.write_text(f"{OLD[0]}: [shove the block]\n{OLD[1]}: [pull the drawer open]\n{NEW}: [press it]\n")
    told = dataclasses.replace(SHORT, phrasings=str(ways), steps=1)
    train([stores[name] for name in OLD], tmp_path / "old", family="sdp", policy_config=TINY, config=told)
    kept = ((OLD[0], "shove the block"), (OLD[1], "pull the drawer open"))
    assert load_policy(tmp_path / "old").module.config.phrasings == kept
    near = make_store(tmp_path / "near.zarr", "pull the drawer open")
    with pytest.raises(ConfigError, match="takes phrasing 1 of 'open the drawer': 'pull the drawer open'"):
        extend(tmp_path / "old", near, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    more = extend(tmp_path / "old", stores[NEW], tmp_path / "more", phrasings=str(ways), steps=1)
    assert load_policy(more).module.config.phrasings == (*kept, (NEW, "press it"))
