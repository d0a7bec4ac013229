"""What a bundle's graphs, normalisers and specs must agree on."""

from __future__ import annotations

from collections.abc import Mapping

from robopolicy.core.errors import BundleError
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.onnx_file import GraphSignature, TensorSignature

CONDITIONING, NOISE, CHUNK = "conditioning", "noise", "chunk"


def check_contract(
    specs: PolicySpecs, normalisers: Normalisers, graphs: Mapping[str, GraphSignature]
) -> None:
    """Hold normalisers and graphs, by role, against the specs; BundleError names what differs and where."""
    _check_normalisers(specs, normalisers)
    encoder, sampler = graphs["encoder"], graphs["sampler"]
    window = (None, specs.horizons.observation)
    inputs = {
        name: TensorSignature("float32", (*window, spec.num_features))
        if spec.kind == "state"
        else TensorSignature("uint8", (*window, *spec.shape))
        for name, spec in specs.specs.observation.items()
    }
    _check_tensors(encoder, "inputs", inputs)
    given = encoder.outputs[CONDITIONING].shape[1:] if CONDITIONING in encoder.outputs else ()
    if not given or None in given:
        raise BundleError(
            f"{encoder.file} must give {CONDITIONING!r} with fixed axes after the first, a vector or "
            f"tokens, got {dict(encoder.outputs)}"
        )
    conditioning = {CONDITIONING: TensorSignature("float32", (None, *given))}
    _check_tensors(encoder, "outputs", conditioning)
    noise = {NOISE: TensorSignature("float32", (None, *specs.noise_shape))}
    _check_tensors(sampler, "inputs", {**conditioning, **noise})
    chunk = {CHUNK: TensorSignature("float32", (None, *specs.chunk_shape))}
    _check_tensors(sampler, "outputs", chunk)


def _check_normalisers(specs: PolicySpecs, normalisers: Normalisers) -> None:
    sizes = {n: s.num_features for n, s in specs.specs.observation.items() if s.kind == "state"}
    if set(normalisers.observation) != set(sizes):
        raise BundleError(
            f"normalisers.json covers {sorted(normalisers.observation)}, "
            f"the states in specs.json are {sorted(sizes)}"
        )
    for name, size in sizes.items():
        _check_affine(f"observation {name!r}", normalisers.observation[name], size)
    _check_affine("the action", normalisers.action, specs.specs.action.dim)


def _check_affine(what: str, affine: Affine, size: int) -> None:
    if len(affine.offset) != size:
        raise BundleError(
            f"normalisers.json has {len(affine.offset)} dimensions for {what}, specs.json gives {size}"
        )


def _check_tensors(graph: GraphSignature, side: str, expected: Mapping[str, TensorSignature]) -> None:
    found = graph.inputs if side == "inputs" else graph.outputs
    if set(found) != set(expected):
        raise BundleError(f"{graph.file} has {side} {sorted(found)}, the specs call for {sorted(expected)}")
    for name, signature in expected.items():
        if found[name] != signature:
            raise BundleError(
                f"{graph.file}: {name!r} is {found[name].dtype} {found[name].shape}, the specs call for "
                f"{signature.dtype} {signature.shape} (None: dynamic)"
            )
