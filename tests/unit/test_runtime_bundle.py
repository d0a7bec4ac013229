"""A bundle is read whole and unaltered, or refused by the name of the file at fault."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_runtime_support import (
    tiny_graphs,
    tiny_normalisers,
    tiny_specs,
    tiny_window,
    write_tiny_bundle,
)

from robopolicy.core.errors import (
    BundleError,
    ConfigError,
    NonFiniteValueError,
    RunExistsError,
    ShapeError,
)
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.policy import Policy, draw_candidates, draw_noise, keyed_rng
from robopolicy.runtime import BundlePolicy, Producer, bundle_digest, load_bundle, write_bundle
from robopolicy.runtime.backends.onnxruntime import choose_providers
from robopolicy.runtime.bundle import FILES, MANIFEST
from robopolicy.runtime.manifest import Manifest, describe_file, parse_manifest

EVERY_FILE = [MANIFEST, *FILES]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "good", image=True).directory


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copy"))


def test_round_trip(good: Path) -> None:
    bundle = load_bundle(good)
    assert bundle.policy_specs == tiny_specs(image=True)
    assert bundle.normalisers == tiny_normalisers(bundle.policy_specs)
    assert bundle.graphs == tiny_graphs(bundle.policy_specs)
    assert bundle.manifest.producer.run == "test"
    assert load_bundle(good, digest=bundle_digest(good)) == bundle


def test_digest_pins_the_whole_bundle(good: Path) -> None:
    with pytest.raises(BundleError, match="digest"):
        load_bundle(good, digest="0" * 64)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_any_flipped_byte_is_refused_by_name(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    for at in np.linspace(0, len(data) - 1, 25).astype(int):
        for bit in (0x01, 0x20):
            altered = bytearray(data)
            altered[at] ^= bit
            (copy / name).write_bytes(bytes(altered))
            with pytest.raises(BundleError, match=name):
                load_bundle(copy)


@pytest.mark.parametrize("name", EVERY_FILE)
@pytest.mark.parametrize("change", ["truncated", "emptied", "extended", "removed", "linked", "directory"])
def test_any_damage_is_refused_by_name(copy: Path, name: str, change: str) -> None:
    path, data = copy / name, (copy / name).read_bytes()
    if change == "truncated":
        path.write_bytes(data[:-1])
    elif change == "emptied":
        path.write_bytes(b"")
    elif change == "extended":
        path.write_bytes(data + b" ")
    else:
        path.rename(copy.parent / name)
        if change == "linked":
            path.symlink_to(copy.parent / name)
        elif change == "directory":
            path.mkdir()
    with pytest.raises(BundleError, match=name):
        load_bundle(copy)


def test_anything_extra_is_refused_by_name(copy: Path) -> None:
    for make in (
        lambda path: path.write_bytes(b""),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(copy / MANIFEST),
    ):
        extra = copy / "weights.bin"
        make(extra)
        with pytest.raises(BundleError, match=r"weights\.bin"):
            load_bundle(copy)
        extra.rmdir() if extra.is_dir() else extra.unlink()
    load_bundle(copy)


def test_swapped_graphs_are_refused(copy: Path) -> None:
    encoder, sampler = (copy / "encoder.onnx").read_bytes(), (copy / "sampler.onnx").read_bytes()
    (copy / "encoder.onnx").write_bytes(sampler)
    (copy / "sampler.onnx").write_bytes(encoder)
    with pytest.raises(BundleError, match=r"(encoder|sampler)\.onnx"):
        load_bundle(copy)


def rewrite(root: Path, name: str, data: bytes) -> None:
    """Replace a file and make the manifest agree, as a careless hand could."""
    manifest = parse_manifest((root / MANIFEST).read_bytes())
    (root / name).write_bytes(data)
    fields = {f.name: getattr(manifest, f.name) for f in dataclasses.fields(manifest)}
    fields["files"] = {**manifest.files, name: describe_file(data)}
    for derived in ("format", "format_version", "checksum"):
        del fields[derived]
    (root / MANIFEST).write_bytes(Manifest.build(**fields).dump())


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("specs.json", '"joints"', '"elbows"'),
        ("specs.json", '"prediction": 8', '"prediction": 9'),
        ("specs.json", '"prediction": 8', '"prediction": 1'),
        ("specs.json", '"robot"', '"unknown_field"'),
        ("normalisers.json", '"goal"', '"gaol"'),
    ],
)
def test_files_that_contradict_one_another_are_refused(copy: Path, name: str, old: str, new: str) -> None:
    text = (copy / name).read_text()
    assert old in text
    rewrite(copy, name, text.replace(old, new).encode())
    with pytest.raises(BundleError, match=r"specs\.json|normalisers\.json|onnx"):
        load_bundle(copy)


def test_swapped_graphs_with_a_matching_manifest_are_refused(copy: Path) -> None:
    encoder, sampler = (copy / "encoder.onnx").read_bytes(), (copy / "sampler.onnx").read_bytes()
    rewrite(copy, "encoder.onnx", sampler)
    rewrite(copy, "sampler.onnx", encoder)
    with pytest.raises(BundleError, match=r"encoder\.onnx has inputs"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("format", "other", "format"), ("format_version", 2, "format_version 2"), ("surprise", 1, "surprise")],
)
def test_other_manifests_are_refused(copy: Path, field: str, value: object, message: str) -> None:
    tree = {**json.loads((copy / MANIFEST).read_text()), field: value}
    (copy / MANIFEST).write_text(json.dumps(tree))
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    specs = tiny_specs()
    graphs = tiny_graphs(specs)
    model = onnx.load_model_from_string(graphs["sampler"])
    onnx.external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save_model(model, tmp_path / "sampler.onnx")
    graphs["sampler"] = (tmp_path / "sampler.onnx").read_bytes()
    with pytest.raises(BundleError, match=r"sampler\.onnx keeps tensor"):
        write_tiny_bundle(tmp_path / "bundle", graphs=graphs)
    assert not (tmp_path / "bundle").exists()


def test_an_existing_directory_is_never_overwritten(good: Path) -> None:
    before = {path.name: path.read_bytes() for path in good.iterdir()}
    with pytest.raises(RunExistsError, match="good"):
        write_tiny_bundle(good)
    assert {path.name: path.read_bytes() for path in good.iterdir()} == before


def test_a_refused_bundle_leaves_nothing_behind(tmp_path: Path) -> None:
    specs = tiny_specs()
    normalisers = Normalisers(tiny_normalisers(specs).observation, Affine((0.0,), (1.0,)))
    with pytest.raises(BundleError, match="the action"):
        write_bundle(
            tmp_path / "bundle",
            policy_specs=specs,
            normalisers=normalisers,
            graphs=tiny_graphs(specs),
            policy="tiny",
            denoising_steps=1,
            producer=Producer("test"),
        )
    assert list(tmp_path.iterdir()) == []


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
