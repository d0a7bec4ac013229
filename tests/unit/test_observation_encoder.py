"""What the network is fed: every input counts, goals once, training changes windows and inference nothing."""

from __future__ import annotations

import pytest
import torch
from synthetic import STATES, make_specs

from robopolicy.core.errors import SpecError
from robopolicy.core.goals import select
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ArraySpec, PolicySpecs, Specs
from robopolicy.models.augmentation import AugmentationConfig
from robopolicy.models.observation_encoder import ObservationConfig, ObservationEncoder

KEYS = ("joints", "goal.points", "scene", "goal.scene")
HORIZON, BATCH = 3, 4
CONFIG = ObservationConfig(vision_channels=(8,), keypoints=2, instruction_features=5)


def make_encoder(keys=KEYS, config=CONFIG, words=0) -> ObservationEncoder:
    torch.manual_seed(0)
    specs = PolicySpecs(select(make_specs(image=True), keys), Horizons(HORIZON, 4, 1), instruction_dim=words)
    return ObservationEncoder(specs, config).eval()


def make_inputs(keys=KEYS, words=0) -> dict[str, torch.Tensor]:
    """Network inputs; goals are constant over the window."""
    generator = torch.Generator().manual_seed(1)
    inputs = {}
    for key in keys:
        spec = make_specs(image=True).observation[key.removeprefix("goal.")]
        if spec.kind == "image":
            size = (BATCH, HORIZON, *spec.shape)
            value = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        else:
            value = torch.rand(BATCH, HORIZON, spec.num_features, generator=generator)
        inputs[key] = value[:, :1].repeat_interleave(HORIZON, 1) if key.startswith("goal.") else value
    if words:
        inputs["instruction"] = torch.rand(BATCH, words, generator=generator)
    return inputs


def test_the_flat_vector_holds_every_step_and_the_goal_once():
    encoder, inputs = make_encoder(words=6), make_inputs(words=6)
    sensed, goal = 2 + 4, 6 + 4  # joints and two keypoints; three points and two keypoints
    assert (encoder.sensed_dim, encoder.goal_dim, encoder.step_dim) == (sensed, goal, sensed + goal)
    flat = encoder(inputs)
    assert flat.shape == (BATCH, encoder.dim) == (BATCH, HORIZON * sensed + goal + 5)
    steps = encoder.steps(inputs)
    assert steps.shape == (BATCH, HORIZON, encoder.step_dim)
    assert torch.equal(flat[:, : HORIZON * sensed], steps[..., :sensed].flatten(1))
    for step in range(HORIZON):
        assert torch.equal(flat[:, HORIZON * sensed : -5], steps[:, step, sensed:])
    assert torch.equal(flat[:, -5:], encoder.instruction(inputs))


def test_every_input_counts():
    encoder, inputs = make_encoder(words=6), make_inputs(words=6)
    before = encoder(inputs)
    for key, value in inputs.items():
        changed = value.flip(0)
        assert (encoder({**inputs, key: changed}) != before).any(-1).all(), key


def test_without_goals_and_words_it_is_the_steps():
    keys = ("joints", "scene")
    encoder, inputs = make_encoder(keys), make_inputs(keys)
    assert encoder.goal(inputs) is None and encoder.instruction(inputs) is None
    assert encoder.dim == HORIZON * encoder.step_dim and encoder.goal_dim == 0
    assert torch.equal(encoder(inputs), encoder.steps(inputs).flatten(1))
    assert torch.equal(encoder.steps(inputs), encoder.sensed(inputs))


def test_a_goal_picture_is_seen_as_the_camera_sees():
    """The same picture gives the same features, whether it is sensed or wanted."""
    encoder, inputs = make_encoder(), make_inputs()
    wanted = inputs["scene"][:, -1:].repeat_interleave(HORIZON, 1)
    seen, goal = encoder.sensed(inputs), encoder.goal({**inputs, "goal.scene": wanted})
    torch.testing.assert_close(goal[:, -4:], seen[:, -1, -4:])
    assert len(encoder.vision) == 1
    assert len(make_encoder(("joints", "goal.scene")).vision) == 1  # also where it is only wanted


def test_the_goal_is_encoded_once():
    encoder, inputs, rows = make_encoder(), make_inputs(), []
    encoder.vision[0].register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    encoder(inputs)
    assert rows == [BATCH * HORIZON, BATCH]


def test_training_augments_by_its_generator_and_inference_does_not():
    full = AugmentationConfig(0.3, 0.3, 0.3, 0.1, 1.0, state_noise=0.1)
    encoder = make_encoder(config=ObservationConfig((8,), keypoints=2, crop=0.75, augmentation=full))
    inputs = make_inputs()
    torch.manual_seed(9)
    first, again, other = (encoder(inputs, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and (first != other).any(-1).all()
    assert torch.equal(encoder(inputs), encoder(inputs))
    assert (first != encoder(inputs)).any(-1).all()


def test_the_steps_of_a_window_are_cropped_and_coloured_alike():
    """A picture that stands still stays still, in every window at a place of its own."""
    colours = AugmentationConfig(0.3, 0.3, 0.3, 0.1, 1.0)
    encoder = make_encoder(("scene", "joints"), ObservationConfig((8,), keypoints=2, augmentation=colours))
    inputs = make_inputs(("scene", "joints"))
    inputs["scene"] = inputs["scene"][:1, :1].expand(BATCH, HORIZON, -1, -1, -1)
    seen = encoder.sensed(inputs, torch.Generator().manual_seed(0))[..., 2:]
    torch.testing.assert_close(seen, seen[:, :1].expand_as(seen))
    assert (seen[0] != seen[1:]).any()


def test_noise_reaches_the_named_states_alone():
    noise = AugmentationConfig(state_noise=0.5, noise_keys=("goal.points",))
    keys = ("joints", "goal.points")
    encoder = make_encoder(keys, ObservationConfig(augmentation=noise))
    inputs, generator = make_inputs(keys), torch.Generator().manual_seed(0)
    steps = encoder.steps(inputs, generator)
    assert torch.equal(steps[..., :2], inputs["joints"])
    assert (steps[..., 2:] != inputs["goal.points"]).all()
    assert (steps[:, :1, 2:] == steps[..., 2:]).all()  # one noise for the whole window


def test_every_weight_learns():
    encoder, inputs = make_encoder(words=6).train(), make_inputs(words=6)
    encoder(inputs, torch.Generator().manual_seed(0)).square().sum().backward()
    moved = {name: float(weight.grad.abs().max()) for name, weight in encoder.named_parameters()}
    assert moved.pop("vision.0.pool.to_keypoints.bias") < 1e-5  # shifts every logit alike
    assert min(moved.values()) > 0, moved


def test_what_cannot_be_encoded_is_refused():
    depth = ArraySpec((8, 8, 1), "uint16", ("mm",), kind="depth")
    action = make_specs().action
    with pytest.raises(SpecError, match=r"cannot take depth images yet, got \['range'\]"):
        ObservationEncoder(PolicySpecs(Specs({**STATES, "range": depth}, action, 10.0)), CONFIG)
    with pytest.raises(SpecError, match=r"something besides its goals \['goal.joints'\]"):
        make_encoder(("goal.joints",))
    noise = ObservationConfig(augmentation=AugmentationConfig(noise_keys=("nose",)))
    with pytest.raises(SpecError, match=r"noise_keys \['nose'\] are no observations"):
        make_encoder(config=noise)
