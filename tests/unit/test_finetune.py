"""Fine-tuning keeps, renews and freezes what it says, adapters merge, and misfits are named."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from synthetic import make_episode, make_policy_specs, make_specs
from training_runs import TINY, make_store, quick, quiet, said

from robopolicy import policies
from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec
from robopolicy.datasets.store import EpisodeStore
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.policies import sdp
from robopolicy.policies._saved import load_policy
from robopolicy.training.finetune import FinetuneConfig, start_from
from robopolicy.training.layers import action_layers, observation_layers
from robopolicy.training.lora import LoraConfig, add_adapters, plain_weights
from robopolicy.training.optimiser import freeze
from robopolicy.training.source import Source

pytestmark = pytest.mark.usefixtures("one_thread")
LOOK = ObservationConfig(vision_channels=(8,), keypoints=2)
UNET = dataclasses.replace(TINY, observation=LOOK)
DELTAS = ActionSpec(
    (ActionPart("joint_delta", ("a", "b"), "relative"), ActionPart("gripper_opening", ("grip",)))
)


def build(specs=None, config=UNET, seed=0):
    torch.manual_seed(seed)
    return policies.family("diffusion_unet").build(config, specs or make_policy_specs(image=True))


def identity(specs, scale=1.0):
    states = {k: s for k, s in specs.specs.observation.items() if s.kind == "state"}
    maps = {k: Affine((0.0,) * s.num_features, (1.0,) * s.num_features) for k, s in states.items()}
    return Normalisers(maps, Affine((0.0,) * specs.specs.action.dim, (scale,) * specs.specs.action.dim))


def a_source(config=UNET):
    specs = make_policy_specs(image=True)
    weights = {name: value.clone() for name, value in build(specs, config, seed=1).state_dict().items()}
    return Source("diffusion_unet", config, specs, identity(specs), weights)


def begin(module, source=None, policy_config=UNET, scale=1.0, **options):
    config = FinetuneConfig(run="somewhere", **options)
    source = source or a_source()
    fitted = identity(module.policy_specs, scale)
    return start_from(source, module, policy_config=policy_config, normalisers=fitted, config=config), source


def changed(specs, **parts):
    return dataclasses.replace(specs, specs=dataclasses.replace(specs.specs, **parts))


def loss(module, rows=6):
    generator = torch.Generator().manual_seed(0)
    specs = module.policy_specs.specs.observation
    observation = {
        key: torch.full((rows, 2, *spec.shape), 100, dtype=torch.uint8)
        if spec.kind == "image"
        else torch.rand(rows, 2, spec.num_features, generator=generator)
        for key, spec in specs.items()
    }
    action = torch.rand(rows, *module.policy_specs.chunk_shape, generator=generator) - 0.5
    mask = torch.ones(action.shape[:2], dtype=torch.bool)
    return module.loss(module.encode(observation), action, mask, generator)


def moved(module, steps=3):
    """Names of weights that some steps of training change."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 0.01, weight_decay=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(module).backward()
        optimiser.step()
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_all_weights_of_the_same_task_are_kept_and_all_move():
    module = build()
    start, source = begin(module)
    assert start.new == () and set(start.kept) == set(source.weights)
    assert all(torch.equal(value, source.weights[name]) for name, value in module.state_dict().items())
    assert start.trainable == start.total == sum(p.numel() for p in module.parameters())
    bias = "pool.to_keypoints.bias"  # shifts a softmax: its gradient is zero, weight decay still moves it
    assert {n for n in dict(module.named_parameters()) if bias not in n} <= moved(module)


@pytest.mark.parametrize("part", ["head", "encoder", "conditioning"])
def test_what_is_not_trained_stays_bit_equal(part):
    module = build()
    start, _ = begin(module, parameters=part)
    expected = {
        "head": lambda name: name.startswith(
            ("denoiser.head", "denoiser.down.0.0.first.0", "denoiser.down.0.0.skip")
        ),
        "encoder": lambda name: name.startswith("encoder."),
        "conditioning": lambda name: ".film." in name,
    }[part]
    names = {name for name, _ in module.named_parameters() if expected(name)}
    assert start.trainable == sum(p.numel() for n, p in module.named_parameters() if n in names) < start.total
    found = moved(module)
    assert found <= names and len(found) >= len(names) - 1 > 0
    assert f"{start.trainable:,} of {start.total:,} parameters are trained" in "\n".join(start.lines())


def test_another_action_space_gets_new_layers_and_a_new_normaliser():
    specs = changed(make_policy_specs(image=True), action=DELTAS)
    module, untouched = build(specs), build(specs)
    start, source = begin(module, scale=3.0)
    assert {name.rpartition(".")[0] for name in start.new} == {
        "denoiser.head.1", "denoiser.down.0.0.first.0", "denoiser.down.0.0.skip",
    }  # fmt: skip
    assert start.normalisers.action.scale == (3.0, 3.0, 3.0)
    assert any("action normaliser is new" in note for note in start.notes)
    own = untouched.state_dict()
    for name, value in module.state_dict().items():
        assert torch.equal(value, own[name] if name in start.new else source.weights[name]), name


def test_another_prediction_gets_a_new_head_and_the_run_is_kept_where_it_is_asked_for():
    other = dataclasses.replace(UNET, schedule=dataclasses.replace(UNET.schedule, prediction="epsilon"))
    assert "denoiser.head.1.weight" in begin(build(config=other), policy_config=other)[0].new
    assert begin(build(config=other), policy_config=other, head="keep")[0].new == ()
    assert "denoiser.head.1.weight" in begin(build(), head="new")[0].new


def test_new_parts_are_trained_with_whatever_else_is():
    specs = changed(make_policy_specs(image=True), action=DELTAS)
    for part in ("encoder", "lora"):
        module = build(specs)
        start, _ = begin(module, parameters=part)
        own = dict(module.named_parameters())
        assert start.new and all(own[name].requires_grad for name in start.new), part


def test_other_observations_are_refused_by_name_unless_their_layers_may_be_new():
    whole = make_policy_specs(image=True)
    observation = {**whole.specs.observation, "force": ArraySpec((6,))}
    del observation["points"]
    specs = changed(whole, observation=observation)
    with pytest.raises(
        SpecError, match=r"'force' is not among its .*'points' is missing; .*observations 'new'"
    ):
        begin(build(specs))
    module = build(specs)
    start, source = begin(module, observations="new")
    assert {name for name in start.new if ".film." not in name} == set() and start.new
    assert torch.equal(module.state_dict()["encoder.vision.0.stem.0.weight"],
                       source.weights["encoder.vision.0.stem.0.weight"])  # fmt: skip
    assert set(start.normalisers.observation) == {"joints", "goal", "force"}


def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded():
    wider = dataclasses.replace(UNET, channels=(8, 32))
    module = build(config=wider)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(
        ConfigError, match=r"denoiser.down.1.0.first.0.weight: \(16, 8, 5\) in the run, \(32, 8, 5\)"
    ):
        begin(module, policy_config=wider)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_only_the_image_encoder_can_be_taken_by_another_network():
    wider = dataclasses.replace(UNET, channels=(8, 32))
    module, untouched = build(config=wider), build(config=wider).state_dict()
    start, source = begin(module, policy_config=wider, take=("encoder.vision",))
    assert start.kept and all(name.startswith("encoder.vision.") for name in start.kept)
    for name, value in module.state_dict().items():
        assert torch.equal(value, source.weights[name] if name in start.kept else untouched[name]), name
    freeze(module, ("encoder.vision",))
    assert not any(name.startswith("encoder.vision") for name in moved(module))
    with pytest.raises(ConfigError, match=r"'encoder\.ears'"):
        begin(module, policy_config=wider, take=("encoder.ears",))


def test_normalisers_are_kept_and_actions_beyond_them_are_told_of_or_all_are_refitted():
    kept, _ = begin(build(), scale=2.0)
    assert kept.normalisers.action.scale == (1.0,) * 3
    assert any("['a', 'b', 'grip'] leave the range" in note for note in kept.notes)
    assert begin(build(), scale=1.0)[0].notes == ()
    assert begin(build(), scale=2.0, normalisers="refit")[0].normalisers.action.scale == (2.0,) * 3


def test_adapters_change_nothing_at_first_and_only_they_move():
    module = build()
    before = loss(build(seed=1))
    start, _ = begin(module, parameters="lora", lora=LoraConfig(rank=2))
    torch.testing.assert_close(loss(module), before, rtol=0, atol=1e-6)
    assert start.trainable < start.total / 2 and start.adapted
    found = moved(module)
    assert found and all(".lora_" in name for name in found)


@pytest.mark.parametrize("family", ["diffusion_unet", "diffusion_transformer", "behaviour_cloning", "gmm"])
def test_merged_weights_are_a_plain_policy_that_computes_the_same(family):
    config = UNET if family == "diffusion_unet" else policies.family(family).Config(observation=LOOK)
    specs = make_policy_specs(image=True)
    torch.manual_seed(0)
    module, plain = (policies.family(family).build(config, specs) for _ in range(2))
    with torch.no_grad():
        for parameter in module.parameters():  # some begin at zero, and what lies behind them has no effect
            parameter.add_(0.05 * torch.randn_like(parameter))
    layers = add_adapters(module, LoraConfig(rank=2))
    moved(module, steps=4)
    unused = [n for n, p in module.named_parameters() if ".lora_B." in n and not p.any()]
    # the shift of a softmax apart, every adapter has an effect: none sits on a layer that is passed by
    assert not unused and len(layers) > 3
    weights = plain_weights(module, module.state_dict())
    plain.load_state_dict(weights, strict=True)
    torch.testing.assert_close(loss(plain.eval()), loss(module.eval()), rtol=0, atol=1e-5)
    assert plain_weights(plain, weights) is weights


def test_adapters_need_layers_to_sit_on():
    with pytest.raises(ConfigError, match="'nowhere'"):
        add_adapters(build(), LoraConfig(targets=("nowhere",)))
    assert all(
        n.startswith("denoiser.up") for n in add_adapters(build(), LoraConfig(targets=("denoiser.up",)))
    )


@pytest.mark.parametrize(
    "family", ["behaviour_cloning", "diffusion_transformer", "diffusion_unet", "gmm", "mode"]
)
def test_layers_of_actions_and_observations_are_found_in_every_family(family):
    specs, before = make_policy_specs(), torch.get_rng_state()
    config = policies.family(family).Config()
    names = set(policies.family(family).build(config, specs).state_dict())
    torch.set_rng_state(before)
    actions, observations = action_layers(family, config, specs), observation_layers(family, config, specs)
    assert actions and observations and not actions & observations and actions | observations < names
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("other", [("pull it", "turn it"), ("lift it", "push it")], ids=["new", "reordered"])
def test_other_tasks_of_sdp_are_found_by_their_own_instructions(tmp_path, other):
    tiny = sdp.Config(dim=16, layers=1, heads=2, expert_hidden=16, schedule=TINY.schedule)
    stores = [
        make_store(tmp_path / f"{i}.zarr", episodes=1, instruction=name)
        for i, name in enumerate(("push it", "lift it", *other))
    ]
    quick(stores[:2], tmp_path / "first", tiny, family="sdp", instruction="words")
    console = quiet()
    config = FinetuneConfig(str(tmp_path / "first"))
    quick(stores[2:], tmp_path / "next", None, instruction="words", finetune=config, console=console, steps=1)
    policy = load_policy(tmp_path / "next")
    assert policy.module.config.tasks == other
    for task, text in enumerate(other):
        policy.module.check_instructions(task, torch.from_numpy(policy.text_encoder.encode([text])))
    assert "new: finder.prototypes, routers.logits.0, routers.logits.1" in said(console)


def test_from_a_run_to_a_run_and_again(tmp_path):
    first, other = (
        make_store(tmp_path / "a.zarr"),
        EpisodeStore.create(tmp_path / "b.zarr", make_specs(image=True, action=DELTAS)),
    )
    for seed in range(4):
        other.append(make_episode(make_specs(image=True, action=DELTAS), 20, seed))
    quick(first, tmp_path / "first")
    console = quiet()
    config = FinetuneConfig(str(tmp_path / "first"), parameters="lora", lora=LoraConfig(rank=2))
    quick(other, tmp_path / "second", finetune=config, console=console)
    assert "denoiser.head.1.weight" in said(console) and "low-rank adapters on" in said(console)
    one, two = (load_file(tmp_path / n / "policy" / "weights.safetensors") for n in ("first", "second"))
    assert set(one) == set(two)  # a plain policy
    renewed = ("denoiser.head.1.", "denoiser.down.0.0.first.0.", "denoiser.down.0.0.skip.")
    changed = {
        name for name in one if not torch.equal(one[name], two[name]) if one[name].shape == two[name].shape
    }
    changed -= {name for name in changed if name.startswith(renewed)}
    assert "denoiser.middle.0.first.0.weight" in changed  # by an adapter, which biases and norms have none of
    assert all(name.endswith(".weight") and two[name].ndim > 1 for name in changed)
    assert load_policy(tmp_path / "second").policy_specs.specs.action == DELTAS
    again = FinetuneConfig(str(tmp_path / "second"), parameters="head")
    quick(other, tmp_path / "third", finetune=again)
    three = load_file(tmp_path / "third" / "policy" / "weights.safetensors")
    frozen = {n for n in three if not n.startswith(("denoiser.head", "denoiser.down.0.0"))}
    assert frozen and all(torch.equal(two[name], three[name]) for name in frozen)
    assert (
        json.loads((tmp_path / "third" / "config.json").read_text())["train"]["finetune"]["parameters"]
        == "head"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run": "r", "parameters": "some"}, "parameters 'some' is not one of"),
        ({"run": "r", "head": "old"}, "head 'old'"),
        ({"run": "r", "normalisers": "both"}, "normalisers 'both'"),
        ({"parameters": "head"}, "need a run to start from"),
    ],
)
def test_impossible_options_are_refused_by_field(options, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**options)
    with pytest.raises(ConfigError, match="rank"):
        LoraConfig(rank=0)
