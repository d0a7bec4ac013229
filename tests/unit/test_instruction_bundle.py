"""Bundles that carry a text encoder: what they must contain, and where an instruction is asked for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx.numpy_helper
import pytest
from onnx import TensorProto, helper
from test_language import make_sentence_encoder
from test_runtime_imports import loaded_after
from test_runtime_support import (
    CONDITIONING_DIM,
    tiny_graphs,
    tiny_normalisers,
    tiny_specs,
    tiny_window,
    write_tiny_bundle,
)

from robopolicy.core.errors import BundleError, SpecError
from robopolicy.core.policy import Context, draw_candidates, draw_noise, keyed_rng
from robopolicy.evaluation.instructed import InstructedPolicy
from robopolicy.runtime import Bundle, BundlePolicy, Producer, load_bundle, write_bundle
from robopolicy.runtime.bundle.manifest import Manifest, canonical, checksum
from robopolicy.runtime.control.preconditions import check_instruction
from robopolicy.runtime.inference.warm_up import warm_up
from robopolicy.runtime.language.choose import load_text_encoder
from robopolicy.runtime.language.words import WordVectors

ENCODER = WordVectors.built_in()


def told_graphs(dim: int) -> dict[str, bytes]:
    """The tiny graphs, their conditioning moved by a projection of the instruction."""
    graphs = tiny_graphs(tiny_specs())
    model = onnx.load_model_from_string(graphs["encoder"])
    graph = model.graph
    weights = np.random.default_rng(9).normal(size=(dim, CONDITIONING_DIM)).astype(np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(weights, "told_w"))
    graph.input.append(helper.make_tensor_value_info("instruction", TensorProto.FLOAT, ["batch", dim]))
    total = next(node for node in graph.node if node.op_type == "Sum")
    total.input.append("told")
    graph.node.insert(0, helper.make_node("MatMul", ["instruction", "told_w"], ["told"]))
    onnx.checker.check_model(model)
    return {**graphs, "encoder": model.SerializeToString()}


def write_told_bundle(directory: Path, encoder: Any = ENCODER, **changes: Any) -> Bundle:
    specs = dataclasses.replace(tiny_specs(), instruction_dim=encoder.dim if encoder else ENCODER.dim)
    content: dict[str, Any] = {
        "policy_specs": specs,
        "normalisers": tiny_normalisers(specs),
        "graphs": told_graphs(specs.instruction_dim),
        "policy": "tiny",
        "denoising_steps": 1,
        "producer": Producer("test"),
        "text_encoder": encoder,
    }
    return write_bundle(directory, **{**content, **changes})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return write_told_bundle(tmp_path_factory.mktemp("told") / "bundle")


def test_the_encoder_lies_in_the_bundle_and_decides_what_is_done(bundle):
    assert bundle.manifest.features == ("instruction",)
    assert (bundle.directory / "text_words.npz").read_bytes() == ENCODER.files["words.npz"]
    policy = BundlePolicy(bundle, provider="cpu")
    window = tiny_window(bundle.policy_specs, np.random.default_rng(0))

    def sample(text: str) -> np.ndarray:
        return draw_candidates(policy, window, 3, rng=keyed_rng(1), instruction=text)

    np.testing.assert_array_equal(sample("lift the cube"), sample("lift the cube"))
    assert np.abs(sample("lift the cube") - sample("open the drawer")).max() > 1e-3
    with pytest.raises(SpecError, match="--instruction TEXT"):
        sample("")


def test_an_altered_or_missing_encoder_is_refused(bundle, tmp_path):
    for name, change in (("cut", lambda data: data[:-1]), ("gone", None)):
        copy = tmp_path / name
        copy.mkdir()
        for path in bundle.directory.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        vectors = copy / "text_words.npz"
        vectors.write_bytes(change(vectors.read_bytes())) if change else vectors.unlink()
        with pytest.raises(BundleError, match=r"text_words\.npz"):
            load_bundle(copy)


def test_policy_and_encoder_belong_together(tmp_path):
    with pytest.raises(BundleError, match="a policy that follows instructions needs an encoder"):
        write_told_bundle(tmp_path / "none", text_encoder=None)
    specs = tiny_specs()
    with pytest.raises(BundleError, match="others none"):
        write_told_bundle(tmp_path / "deaf", policy_specs=specs, graphs=tiny_graphs(specs))
    with pytest.raises(
        BundleError, match=r"encoder.onnx has inputs \['goal', 'joints'\], the specs call for"
    ):
        write_told_bundle(tmp_path / "graph", graphs=tiny_graphs(specs))
    with pytest.raises(BundleError, match=r"'instruction' is float32 \(None, 7\), the specs call for"):
        write_told_bundle(tmp_path / "size", graphs=told_graphs(7))
    small = load_text_encoder(str(make_sentence_encoder(tmp_path / "mini")))
    other = write_told_bundle(tmp_path / "other", text_encoder=small)
    with pytest.raises(SpecError, match="of 128 numbers, text encoder 'mini' gives 3"):
        BundlePolicy(other, provider="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"features": []},
        {"text_files": []},
        {"text_encoder": ""},
        {"text_files": ["encoder.onnx"]},
        {"text_files": ["text_other.npz"]},
        {"text_files": ["text_words.npz", "text_words.npz"]},
    ],
)
def test_a_manifest_must_say_it_consistently(bundle, change):
    tree = {**json.loads(bundle.manifest.dump()), **change}
    tree["checksum"] = checksum(tree)
    with pytest.raises(BundleError, match=r"text_files|text encoder"):
        Manifest.parse(canonical(tree))


def test_bundles_from_before_there_was_language_stay_readable(tmp_path):
    old = write_tiny_bundle(tmp_path / "old").directory
    tree = json.loads((old / "manifest.json").read_text())
    specs = json.loads((old / "specs.json").read_text())
    assert tree["features"] == [] and specs["instruction_dim"] == 0
    for name in ("text_encoder", "text_files"):
        del tree[name]
    tree["checksum"] = checksum(tree)
    (old / "manifest.json").write_bytes(canonical(tree))
    policy = BundlePolicy(load_bundle(old), provider="cpu")
    window = tiny_window(policy.policy_specs, np.random.default_rng(0))
    plain = draw_candidates(policy, window, 1, rng=keyed_rng(0))
    np.testing.assert_array_equal(
        draw_candidates(policy, window, 1, rng=keyed_rng(0), instruction="x"), plain
    )


def test_a_sentence_encoder_travels_in_the_bundle(tmp_path):
    encoder = load_text_encoder(str(make_sentence_encoder(tmp_path / "mini")))
    bundle = write_told_bundle(tmp_path / "bundle", encoder)
    assert bundle.manifest.text_files == ("text_model.onnx", "text_tokenizer.json")
    policy = BundlePolicy(load_bundle(tmp_path / "bundle", digest=bundle.digest), provider="cpu")
    window = tiny_window(bundle.policy_specs, np.random.default_rng(0))
    texts = [
        draw_candidates(policy, window, 1, rng=keyed_rng(1), instruction=text) for text in ("lift", "cube")
    ]
    assert (texts[0] != texts[1]).any()


def test_the_built_in_encoder_needs_nothing_more_on_a_robot(bundle):
    statement = (
        "import sys\nimport numpy as np\nfrom robopolicy.core.policy import Context\n"
        "from robopolicy.runtime import BundlePolicy, load_bundle\n"
        "policy = BundlePolicy(load_bundle(sys.argv[1]), provider='cpu')\n"
        "seen = {n: np.zeros((1, 2, *s.shape), s.dtype) for n, s in "
        "policy.policy_specs.specs.observation.items()}\n"
        "policy.sample(seen, np.zeros((1, 1, 8, 3), np.float32), Context(('lift',)))"
    )
    loaded = loaded_after(statement, str(bundle.directory))
    assert "onnxruntime" in loaded
    assert not loaded.intersection({"tokenizers", "torch", "onnx", "scipy", "yaml"})


def test_a_warm_up_and_a_run_know_of_it(bundle):
    policy = BundlePolicy(bundle, provider="cpu")
    assert warm_up(policy, 2, (1, 2)) > 0
    with pytest.raises(SpecError, match="--instruction TEXT"):
        check_instruction(bundle.policy_specs, " ")
    check_instruction(bundle.policy_specs, "lift")
    check_instruction(tiny_specs(), "")


def test_one_instruction_in_place_of_what_environments_say(bundle):
    policy = BundlePolicy(bundle, provider="cpu")
    always = InstructedPolicy(policy, "lift the cube")
    specs = bundle.policy_specs
    windows = [tiny_window(specs, np.random.default_rng(i)) for i in range(2)]
    batch = {name: np.stack([w[name] for w in windows]) for name in windows[0]}
    noise = np.stack([draw_noise(specs, 2, keyed_rng(i)) for i in range(2)])
    expected = policy.sample(batch, noise, Context(("lift the cube",) * 2))
    for context in (Context(), Context(("push", "pull"))):
        np.testing.assert_array_equal(always.sample(batch, noise, context), expected)
    assert always.policy_specs == specs
    assert len({always.digest, policy.digest, InstructedPolicy(policy, "push").digest}) == 3
