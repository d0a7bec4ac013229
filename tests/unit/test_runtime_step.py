"""A bundle may hold one denoising step and the rows it runs on: the same chunks as a whole loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from stepping import (
    MEMBERS,
    STEPS,
    critic_normalisers,
    projection,
    step_graphs,
    step_specs,
    write_step_bundle,
)
from test_runtime_support import tiny_graphs, tiny_window, write_tiny_bundle

from robopolicy.core.errors import BundleError, ConfigError, NonFiniteValueError, ShapeError, SpecError
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.policy import Context, Prefix
from robopolicy.runtime import Bundle, BundlePolicy, load_bundle
from robopolicy.runtime.backends import onnxruntime as backend


def windows(bundle: Bundle, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    found = [tiny_window(bundle.policy_specs, rng) for _ in range(batch)]
    return {name: np.stack([w[name] for w in found]) for name in found[0]}


def noise_of(bundle: Bundle, batch: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    return rng.normal(size=(batch, n, *bundle.policy_specs.noise_shape)).astype(np.float32)


def by_hand(
    bundle: Bundle, observation: dict[str, np.ndarray], noise: np.ndarray, prefix: Prefix | None = None
) -> np.ndarray:
    """The loop in numpy."""
    batch = len(noise)
    model = onnx.load_model_from_string(bundle.graphs["encoder"])
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    inputs = bundle.normalisers.observations(bundle.policy_specs.specs, observation)
    conditioning = sum(v.reshape(batch, -1) @ weights[f"{k}_w"] for k, v in inputs.items())
    mean = (conditioning @ projection()).reshape(batch, 1, *bundle.policy_specs.chunk_shape)
    chunk = noise
    for keep, told in STEPS:
        chunk = keep * chunk + told * mean
        if prefix is not None:
            target = bundle.normalisers.action.forward(prefix.action)[:, None]
            chunk = chunk + prefix.weight[:, None, :, None] * (target - chunk)
    return bundle.normalisers.action.inverse(chunk)


def some_prefix(bundle: Bundle, batch: int) -> Prefix:
    horizon, dim = bundle.policy_specs.chunk_shape
    action = np.random.default_rng(9).normal(size=(batch, horizon, dim)).astype(np.float32)
    return Prefix(action, np.tile(np.linspace(1, 0, horizon, dtype=np.float32), (batch, 1)))


def test_the_loop_is_what_the_rows_say_for_any_number_of_candidates(tmp_path: Path) -> None:
    bundle = write_step_bundle(tmp_path / "bundle")
    assert bundle.manifest.features == ("step",) and bundle.manifest.steps == STEPS
    policy = BundlePolicy(bundle, provider="cpu")
    # more sizes than buffers are kept for, and back to the first
    for batch, n in [(1, 1), (2, 3), (1, 16), (3, 1), (1, 2), (2, 2), (1, 1)]:
        observation, noise = windows(bundle, batch), noise_of(bundle, batch, n)
        expected = by_hand(bundle, observation, noise)
        np.testing.assert_allclose(policy.sample(observation, noise), expected, atol=1e-5)
    assert len(policy._backends["step"]._loops) == backend.KEPT_LOOPS


def test_results_are_the_callers_to_keep(tmp_path: Path) -> None:
    """Buffers are reused, and neither results nor arguments may be among them."""
    bundle = write_step_bundle(tmp_path / "bundle")
    policy = BundlePolicy(bundle, provider="cpu")
    observation, noise = windows(bundle, 1), noise_of(bundle, 1, 2)
    before = noise.copy()
    first = policy.sample(observation, noise)
    kept = first.copy()
    other = policy.sample(observation, -noise)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(noise, before)
    assert np.abs(other - first).max() > 0.01
    np.testing.assert_array_equal(policy.sample(observation, noise), kept)


def test_a_prefix_binds_and_without_one_every_action_is_free(tmp_path: Path) -> None:
    bundle = write_step_bundle(tmp_path / "bundle", prefix=True)
    policy = BundlePolicy(bundle, provider="cpu")
    for batch, n in [(1, 1), (2, 3)]:
        observation, noise = windows(bundle, batch), noise_of(bundle, batch, n)
        prefix = some_prefix(bundle, batch)
        bound = policy.sample(observation, noise, Context(prefix=prefix))
        np.testing.assert_allclose(bound, by_hand(bundle, observation, noise, prefix), atol=1e-5)
        np.testing.assert_allclose(bound[:, :, 0], prefix.action[:, None, 0].repeat(n, 1), atol=1e-5)
        free = policy.sample(observation, noise)
        np.testing.assert_allclose(free, by_hand(bundle, observation, noise), atol=1e-5)


def test_a_prefix_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    bundle = write_step_bundle(tmp_path / "bundle", prefix=True)
    policy = BundlePolicy(bundle, provider="cpu")
    observation, noise, good = windows(bundle, 1), noise_of(bundle, 1, 1), some_prefix(bundle, 1)
    for bad, error in [
        (dataclasses.replace(good, action=good.action[:, :-1]), ShapeError),
        (dataclasses.replace(good, action=good.action * np.nan), NonFiniteValueError),
        (dataclasses.replace(good, weight=good.weight * 2), ConfigError),
    ]:
        with pytest.raises(error):
            policy.sample(observation, noise, Context(prefix=bad))


def test_a_policy_without_prefix_ignores_one(tmp_path: Path) -> None:
    bundle = write_step_bundle(tmp_path / "bundle")
    policy = BundlePolicy(bundle, provider="cpu")
    observation, noise = windows(bundle, 1), noise_of(bundle, 1, 1)
    told = policy.sample(observation, noise, Context(prefix=some_prefix(bundle, 1)))
    np.testing.assert_array_equal(told, policy.sample(observation, noise))


def test_prefix_inputs_are_there_exactly_when_the_specs_say_so(tmp_path: Path) -> None:
    for prefix in (False, True):
        graphs = step_graphs(step_specs(prefix=not prefix))
        with pytest.raises(BundleError, match=r"step\.onnx has inputs"):
            write_step_bundle(tmp_path / "bundle", prefix=prefix, graphs=graphs)
    specs = step_specs(prefix=True)
    with pytest.raises(BundleError, match=r"sampler\.onnx has inputs"):
        write_step_bundle(tmp_path / "bundle", prefix=True, graphs=tiny_graphs(specs), steps=())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": ()}, "steps must be 3 rows"),
        ({"steps": STEPS[:2]}, "steps must be 3 rows of one size .*got 2"),
        ({"steps": (*STEPS[:2], (1.0,))}, r"sizes \[1, 2\]"),
        ({"steps": ((),) * 3}, r"sizes \[0\]"),
        ({"steps": tuple((*row, 1.0) for row in STEPS)}, r"step\.onnx: 'step_parameters' is float32 \(2,\)"),
        ({"graphs": {}}, "a bundle has"),
    ],
)
def test_rows_that_do_not_fit_the_graph_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        write_step_bundle(tmp_path / "bundle", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_step_must_begin_with_noise_of_a_chunks_shape(tmp_path: Path) -> None:
    specs = dataclasses.replace(step_specs(), noise_shape=(4,))
    with pytest.raises(BundleError, match=r"step\.onnx begins with noise \(4,\)"):
        write_step_bundle(tmp_path / "bundle", policy_specs=specs)


def test_step_and_sampler_exclude_each_other(tmp_path: Path) -> None:
    specs = step_specs()
    with pytest.raises(BundleError, match="a bundle has"):
        write_step_bundle(tmp_path / "bundle", graphs={**step_graphs(specs), **tiny_graphs(specs)})


def test_values_are_the_critics(tmp_path: Path) -> None:
    bundle = write_step_bundle(tmp_path / "bundle", critic=True)
    assert bundle.manifest.features == ("step", "critic")
    assert load_bundle(tmp_path / "bundle") == bundle
    policy = BundlePolicy(bundle, provider="cpu")
    observation, noise = windows(bundle, 2), noise_of(bundle, 2, 3)
    candidates = policy.sample(observation, noise)
    model = onnx.load_model_from_string(bundle.graphs["encoder"])
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    own = critic_normalisers(bundle.policy_specs)
    assert policy.has_critic and policy.critic_normalisers == own
    inputs = own.observations(policy.critic_specs.specs, observation)
    seen = sum(v.reshape(2, -1) @ weights[f"{k}_w"] for k, v in inputs.items()).sum(-1)
    expected = seen[:, None] + own.action.forward(candidates).mean((-1, -2))
    values = policy.values(observation, candidates)
    assert values.shape == (2, 3, MEMBERS) and values.dtype == np.float32
    np.testing.assert_allclose(values, np.stack([expected, -expected], -1), atol=1e-5)
    unlike = np.abs(expected - seen[:, None] - bundle.normalisers.action.forward(candidates).mean((-1, -2)))
    assert unlike.max() > 1e-3  # the policy's normalisers would give something else
    with pytest.raises(ShapeError, match="candidates"):
        policy.values(observation, candidates[0])
    with pytest.raises(ShapeError, match="joints"):
        policy.values({**observation, "joints": observation["joints"][:1]}, candidates)


def test_a_bundle_without_critic_has_no_values(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    policy = BundlePolicy(bundle, provider="cpu")
    observation, noise = windows(bundle, 1), noise_of(bundle, 1, 1)
    with pytest.raises(SpecError, match="no critic"):
        policy.values(observation, policy.sample(observation, noise))


def test_a_critic_comes_with_both_its_graphs(tmp_path: Path) -> None:
    graphs = step_graphs(step_specs(), critic=True)
    with pytest.raises(BundleError, match="a bundle has"):
        write_step_bundle(tmp_path / "bundle", graphs={k: v for k, v in graphs.items() if k != "critic"})
    swapped = {**graphs, "critic": graphs["critic_encoder"]}
    with pytest.raises(BundleError, match=r"critic\.onnx has inputs"):
        write_step_bundle(tmp_path / "bundle", critic=True, graphs=swapped)


def test_a_critic_may_look_at_less_than_the_policy(tmp_path: Path) -> None:
    specs = step_specs()
    first, *others = specs.specs.observation
    assert others
    fewer = dataclasses.replace(specs, specs=specs.specs.select((first,)))
    fitted = critic_normalisers(specs)
    own = dataclasses.replace(fitted, observation={first: fitted.observation[first]})
    part = {"critic_inputs": (first,), "critic_normalisers": own}
    scored = step_graphs(fewer, critic=True)
    graphs = {**step_graphs(specs), **{k: v for k, v in scored.items() if k.startswith("critic")}}
    bundle = write_step_bundle(tmp_path / "bundle", graphs=graphs, **part)
    policy = BundlePolicy(bundle, provider="cpu")
    assert list(policy.critic_specs.specs.observation) == [first]
    observation, noise = windows(bundle, 2), noise_of(bundle, 2, 3)
    candidates = policy.sample(observation, noise)
    values = policy.values({first: observation[first]}, candidates)
    assert values.shape == (2, 3, MEMBERS)
    np.testing.assert_array_equal(values, policy.values(observation, candidates))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"critic_inputs": ()}, "belong together"),
        ({"critic_inputs": ("joints", "joints")}, "each input once"),
        ({"critic_inputs": ("elsewhere",)}, r"looks at \['elsewhere'\]"),
        ({"critic_inputs": ("joints", "instruction")}, "looks at"),
        ({"critic_normalisers": None}, "critic_normalisers.json"),
        ({"critic_normalisers": Normalisers({}, Affine((0.0,), (1.0,)))}, "critic_normalisers.json covers"),
    ],
)
def test_a_critic_that_contradicts_itself_is_refused(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=told):
        write_step_bundle(tmp_path / "bundle", critic=True, **changes)


def test_normalisers_of_no_critic_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"critic_normalisers\.json"):
        write_step_bundle(tmp_path / "bundle", critic_normalisers=critic_normalisers(step_specs()))


def test_values_that_are_not_numbers_pass_through(tmp_path: Path) -> None:
    """Whoever chooses among candidates must be told, not stopped."""
    graphs = step_graphs(step_specs(), critic=True)
    model = onnx.load_model_from_string(graphs["critic"])
    for node in model.graph.node:
        if node.op_type == "Neg":
            node.op_type = "Log"  # of a negative number
    bundle = write_step_bundle(
        tmp_path / "bundle", critic=True, graphs={**graphs, "critic": model.SerializeToString()}
    )
    policy = BundlePolicy(bundle, provider="cpu")
    observation = windows(bundle, 1)
    candidates = policy.sample(observation, noise_of(bundle, 1, 1))
    far = np.concatenate([1e4 * candidates, -1e4 * candidates], axis=1)
    values = policy.values(observation, far)
    assert np.isfinite(values[..., 0]).all() and np.isnan(values[..., 1]).any()
