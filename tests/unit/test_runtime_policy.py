"""A bundle computes what its graphs say, from noise alone, with the engine that was asked for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from test_runtime_support import tiny_graphs, tiny_specs, tiny_window, write_tiny_bundle

from robopolicy.core.errors import BundleError, ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.policy import Context, Policy, draw_candidates, draw_noise, keyed_rng
from robopolicy.runtime import BundlePolicy
from robopolicy.runtime.backends import onnxruntime as backend
from robopolicy.runtime.backends.onnxruntime import OnnxRuntimeBackend, choose_providers


@pytest.mark.parametrize("image", [False, True])
def test_policy_matches_numpy(tmp_path: Path, image: bool) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", image=image)
    policy = BundlePolicy(bundle, provider="cpu")
    assert isinstance(policy, Policy)
    specs, rng = bundle.policy_specs, np.random.default_rng(3)
    windows = [tiny_window(specs, rng) for _ in range(2)]
    batch = {name: np.stack([w[name] for w in windows]) for name in windows[0]}
    noise = np.stack([draw_noise(specs, 3, rng) for _ in range(2)])
    candidates = policy.sample(batch, noise)
    assert candidates.shape == (2, 3, *specs.chunk_shape)

    def weights(graph: str) -> dict[str, np.ndarray]:
        model = onnx.load_model_from_string(bundle.graphs[graph])
        return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}

    encoder, sampler = weights("encoder"), weights("sampler")
    inputs = bundle.normalisers.observations(specs.specs, batch)
    conditioning = sum(v.reshape(2, -1).astype(np.float32) @ encoder[f"{n}_w"] for n, v in inputs.items())
    mean = (conditioning @ sampler["w"]).reshape(2, 1, *specs.chunk_shape)
    expected = bundle.normalisers.action.inverse(mean + noise * sampler["scale"])
    np.testing.assert_allclose(candidates, expected, atol=1e-5)


def test_policy_is_deterministic_in_its_noise_key(tmp_path: Path) -> None:
    policy = BundlePolicy(write_tiny_bundle(tmp_path / "bundle"), provider="cpu")
    window = tiny_window(policy.policy_specs, np.random.default_rng(0))
    first, again, other = (
        draw_candidates(policy, window, 2, rng=keyed_rng(*key)) for key in [(1, 2, 3), (1, 2, 3), (1, 2, 4)]
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_policy_refuses_bad_input_and_output(tmp_path: Path) -> None:
    specs = tiny_specs()
    policy = BundlePolicy(
        write_tiny_bundle(tmp_path / "bundle", graphs=tiny_graphs(specs, scale=np.inf)), provider="cpu"
    )
    window = {k: v[None] for k, v in tiny_window(specs, np.random.default_rng(0)).items()}
    noise = np.ones((1, 1, *specs.noise_shape), dtype=np.float32)
    with pytest.raises(NonFiniteValueError, match="sampler"):
        policy.sample(window, noise)
    with pytest.raises(ShapeError, match="joints"):
        policy.sample({**window, "joints": window["joints"][..., :2]}, noise)


def test_provider_choice() -> None:
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    assert choose_providers("auto", [cpu]) == [cpu]
    assert choose_providers("auto", [cuda, cpu]) == [cuda, cpu]
    assert choose_providers("cpu", [cuda, cpu]) == [cpu]
    for wish in ("cuda", "tpu"):
        with pytest.raises(ConfigError, match=wish):
            choose_providers(wish, [cpu])


def test_a_provider_that_cannot_be_used_is_not_replaced_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime falls back to the CPU where CUDA's libraries are missing."""
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"

    class Session:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def get_providers(self) -> list[str]:
            return [cpu]

        def get_outputs(self) -> list[Any]:
            return []

    engine = SimpleNamespace(
        SessionOptions=lambda: SimpleNamespace(add_session_config_entry=lambda *_: None),
        ExecutionMode=SimpleNamespace(ORT_SEQUENTIAL=0),
        InferenceSession=Session,
        get_available_providers=lambda: [cuda, cpu],
    )
    monkeypatch.setattr(backend, "_engine", lambda: engine)
    assert OnnxRuntimeBackend(b"", provider="auto").provider == cpu
    with pytest.raises(ConfigError, match="'cuda' cannot be used"):
        OnnxRuntimeBackend(b"", provider="cuda")


def test_a_context_is_taken_and_ignored(tmp_path: Path) -> None:
    policy = BundlePolicy(write_tiny_bundle(tmp_path / "bundle"), provider="cpu")
    window = tiny_window(policy.policy_specs, np.random.default_rng(0))
    plain, told = (
        draw_candidates(policy, window, 1, rng=keyed_rng(1), instruction=text) for text in ("", "lift")
    )
    np.testing.assert_array_equal(plain, told)
    batch = {name: value[None] for name, value in window.items()}
    noise = draw_noise(policy.policy_specs, 1, keyed_rng(1))[None]
    np.testing.assert_array_equal(policy.sample(batch, noise, context=Context(("lift",)))[0], told)


@pytest.mark.parametrize("shape", [(1, 3), (3, 1, 1)])
def test_conditioning_may_be_tokens(tmp_path: Path, shape: tuple[int, ...]) -> None:
    specs = tiny_specs()
    window = tiny_window(specs, np.random.default_rng(0))
    noise = np.random.default_rng(1).normal(size=(2, 4, *specs.noise_shape)).astype(np.float32)
    batch = {name: np.stack([value, value + 1]) for name, value in window.items()}
    flat, tokens = (
        BundlePolicy(write_tiny_bundle(tmp_path / name, graphs=graphs), provider="cpu").sample(batch, noise)
        for name, graphs in [
            ("flat", tiny_graphs(specs)),
            ("tokens", tiny_graphs(specs, conditioning_shape=shape)),
        ]
    )
    np.testing.assert_array_equal(flat, tokens)


def test_conditioning_must_be_fixed_and_the_same_in_both_graphs(tmp_path: Path) -> None:
    specs = tiny_specs()
    tokens, other = (tiny_graphs(specs, conditioning_shape=shape) for shape in [(3, 1), (1, 3)])
    with pytest.raises(BundleError, match=r"sampler\.onnx: 'conditioning' is float32 \(None, 1, 3\)"):
        write_tiny_bundle(tmp_path / "bundle", graphs={**tokens, "sampler": other["sampler"]})
    with pytest.raises(BundleError, match="fixed axes"):
        write_tiny_bundle(tmp_path / "bundle", graphs=tiny_graphs(specs, conditioning_shape=("n", 1)))
