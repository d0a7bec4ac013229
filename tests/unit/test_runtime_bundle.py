"""A bundle is read whole and unaltered, or refused by the name of the file at fault."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from test_runtime_support import (
    tiny_graphs,
    tiny_normalisers,
    tiny_specs,
    write_tiny_bundle,
)

from robopolicy.core.errors import (
    BundleError,
    RunExistsError,
)
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.runtime import Producer, bundle_digest, load_bundle, write_bundle
from robopolicy.runtime.bundle.manifest import MANIFEST, canonical, checksum, describe_file

EVERY_FILE = [MANIFEST, "specs.json", "normalisers.json", "encoder.onnx", "sampler.onnx"]


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
    (root / name).write_bytes(data)
    files = {name: dataclasses.asdict(describe_file(data))}
    rewrite_manifest(root, files={**read_manifest(root)["files"], **files})


def read_manifest(root: Path) -> dict[str, Any]:
    return json.loads((root / MANIFEST).read_bytes())


def rewrite_manifest(root: Path, **changes: object) -> None:
    """As another release, or a careless hand, would write it: whole and undamaged."""
    tree = {**read_manifest(root), **changes}
    (root / MANIFEST).write_bytes(canonical({**tree, "checksum": checksum(tree)}))


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


def test_each_graph_has_its_own_opset_and_precision(tmp_path: Path) -> None:
    specs = tiny_specs()
    bundle = write_bundle(
        tmp_path / "bundle",
        policy_specs=specs,
        normalisers=tiny_normalisers(specs),
        graphs=tiny_graphs(specs, opset=18),
        policy="tiny",
        denoising_steps=1,
        producer=Producer("test"),
        precision={"sampler": "fp16"},
    )
    assert read_manifest(bundle.directory)["graphs"] == {
        "encoder": {"file": "encoder.onnx", "opset": 17, "precision": "fp32"},
        "sampler": {"file": "sampler.onnx", "opset": 18, "precision": "fp16"},
    }
    assert read_manifest(bundle.directory)["features"] == []


def test_roles_and_not_file_names_say_what_a_graph_is(copy: Path) -> None:
    tree = read_manifest(copy)
    (copy / "encoder.onnx").rename(copy / "e.onnx")
    tree["files"]["e.onnx"] = tree["files"].pop("encoder.onnx")
    tree["graphs"]["encoder"]["file"] = "e.onnx"
    rewrite_manifest(copy, **tree)
    assert load_bundle(copy).graphs["encoder"] == (copy / "e.onnx").read_bytes()
    rewrite_manifest(copy, graphs={**tree["graphs"], "sampler": {**tree["graphs"]["sampler"], "opset": 3}})
    with pytest.raises(BundleError, match=r"sampler\.onnx has opset 17, manifest\.json says 3"):
        load_bundle(copy)


def test_a_later_bundle_is_refused_by_its_feature(copy: Path) -> None:
    """It has one graph and one field more; the reason is neither the file nor the field."""
    (copy / "critic.onnx").write_bytes(b"later")
    tree = read_manifest(copy)
    graphs = {**tree["graphs"], "critic": {"file": "critic.onnx", "opset": 17, "precision": "fp32"}}
    files = {**tree["files"], "critic.onnx": dataclasses.asdict(describe_file(b"later"))}
    rewrite_manifest(copy, graphs=graphs, files=files, features=["rerank"], later=1)
    with pytest.raises(BundleError, match=r"features \['rerank'\]"):
        load_bundle(copy)
