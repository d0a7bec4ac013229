"""The manifest outlives the release that wrote it: read as it was written, judged by what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from robopolicy.core.errors import BundleError
from robopolicy.runtime import Manifest, Producer
from robopolicy.runtime.bundle.manifest import FileEntry, canonical, checksum

#: As the first release wrote it, byte for byte.
STORED = b"""\
{
  "checksum": "ba05f92238deb14f320de28575e5733236aed4b57eb1fa6b0517250efaf117bd",
  "denoising_steps": 4,
  "features": [],
  "files": {
    "encoder.onnx": {
      "bytes": 7,
      "sha256": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
    },
    "normalisers.json": {
      "bytes": 7,
      "sha256": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
    },
    "sampler.onnx": {
      "bytes": 7,
      "sha256": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
    },
    "specs.json": {
      "bytes": 7,
      "sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    }
  },
  "format": "robopolicy-bundle",
  "format_version": 1,
  "graphs": {
    "encoder": {
      "file": "encoder.onnx",
      "opset": 17,
      "precision": "fp32"
    },
    "sampler": {
      "file": "sampler.onnx",
      "opset": 17,
      "precision": "fp32"
    }
  },
  "policy": "tiny",
  "producer": {
    "details": {
      "loss": "0.1"
    },
    "git_revision": "0000000000000000000000000000000000000000",
    "run": "walker",
    "versions": {
      "onnx": "1.17"
    }
  }
}
"""


@dataclass(frozen=True)
class LaterProducer(Producer):
    host: str = ""


@dataclass(frozen=True)
class LaterFileEntry(FileEntry):
    compressed: bool = False


@dataclass(frozen=True)
class LaterManifest(Manifest):
    """One more field here, and one in each part."""

    files: Mapping[str, LaterFileEntry]
    producer: LaterProducer
    licence: str = "unknown"


def altered(**changes: object) -> bytes:
    """Whole and undamaged, but not what this release wrote."""
    tree = {**json.loads(STORED), **changes}
    return canonical({**tree, "checksum": checksum(tree)})


def with_graph(role: str, **changes: object) -> dict[str, Any]:
    graphs = json.loads(STORED)["graphs"]
    return {**graphs, role: {**graphs.get(role, graphs["encoder"]), **changes}}


def without_graph(role: str) -> dict[str, Any]:
    return {name: graph for name, graph in json.loads(STORED)["graphs"].items() if name != role}


def test_what_is_stored_is_what_is_written() -> None:
    manifest = Manifest.parse(STORED)
    tree = json.loads(manifest.dump())
    assert {key: tree[key] for key in json.loads(STORED)} == json.loads(STORED)
    assert (manifest.steps, manifest.measured) == ((), {})  # it knew neither
    assert manifest.producer == Producer("walker", "0" * 40, {"onnx": "1.17"}, {"loss": "0.1"})


def test_fields_added_later_leave_stored_manifests_valid() -> None:
    later = LaterManifest.parse(STORED)
    assert (later.licence, later.producer.host) == ("unknown", "")
    assert later.files["specs.json"].compressed is False


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"walker"', b'"talker"'),
        (b"  ", b" "),
        (b'"bytes": 7', b'"bytes":  7'),
        (b'"policy"', b'"p\\u006flicy"'),
    ],
)
def test_damage_is_noticed(old: bytes, new: bytes) -> None:
    assert old in STORED
    with pytest.raises(BundleError, match="was altered"):
        Manifest.parse(STORED.replace(old, new, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format"),
        ({"format_version": 2}, "format_version 2"),
        ({"surprise": 1}, "surprise"),
        ({"denoising_steps": 0}, "denoising_steps"),
        ({"features": ["rerank"]}, r"features \['rerank'\]"),
        ({"features": "rerank"}, "list of names"),
        ({"features": ["critic"]}, r"lack the roles \['critic', 'critic_encoder'\]"),
        ({"features": ["critic", "critic"]}, "named twice"),
        ({"features": ["step"]}, r"lack the roles \['step'\] and have the unknown roles \['sampler'\]"),
        ({"steps": [[1.0]]}, "steps must be 0 rows"),
        ({"steps": [["1"]]}, r"steps\[0\]\[0\]"),
        ({"measured": {"latency_ms": "fast"}}, r"measured\.latency_ms"),
        ({"graphs": with_graph("critic")}, r"unknown roles \['critic'\]"),
        ({"graphs": without_graph("sampler")}, r"lack the roles \['sampler'\]"),
        ({"graphs": with_graph("encoder", precision="fp64")}, "'fp64' of 'encoder'"),
        ({"graphs": with_graph("encoder", file="../e.onnx")}, r"'\.\./e\.onnx'"),
        ({"graphs": with_graph("encoder", opset="17")}, r"graphs\.encoder\.opset"),
    ],
)
def test_other_manifests_are_refused_by_what_differs(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Manifest.parse(altered(**changes))


@pytest.mark.parametrize("number", [b"1e999", b"NaN", b"-Infinity"])
def test_numbers_json_does_not_have_are_refused(number: bytes) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Manifest.parse(STORED.replace(b'"denoising_steps": 4', b'"denoising_steps": ' + number))
