"""What a bundle's graphs, normalisers and specs must agree on."""

from __future__ import annotations

from collections.abc import Mapping

from robopolicy.core.errors import BundleError
from robopolicy.core.language import INSTRUCTION
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.backends.onnx_file import GraphSignature, TensorSignature

CONDITIONING, NOISE, CHUNK = "conditioning", "noise", "chunk"
STEP_CHUNK, STEP_PARAMETERS, STEP_OUTPUT = "step_chunk", "step_parameters", "step_output"
PREFIX, PREFIX_WEIGHT = "prefix", "prefix_weight"
CRITIC_CONDITIONING, VALUE = "critic_conditioning", "value"


def check_contract(
    specs: PolicySpecs,
    normalisers: Normalisers,
    graphs: Mapping[str, GraphSignature],
    parameters: int = 0,
) -> None:
    """Hold normalisers and graphs, by role, against the specs; BundleError names what differs and where.

    Args:
        parameters: of one denoising step, where there is a step graph.
    """
    _check_normalisers(specs, normalisers)
    conditioning = _check_encoder(specs, graphs["encoder"], CONDITIONING)
    chunk = TensorSignature("float32", (None, *specs.chunk_shape))
    prefix = {PREFIX: chunk, PREFIX_WEIGHT: TensorSignature("float32", (None, specs.chunk_shape[0]))}
    common = {**conditioning, **(prefix if specs.takes_prefix else {})}
    if "step" in graphs:
        step = graphs["step"]
        if specs.noise_shape != specs.chunk_shape:
            raise BundleError(
                f"{step.file} begins with noise {specs.noise_shape}, which must be {specs.chunk_shape}"
            )
        row = TensorSignature("float32", (parameters,))
        _check_tensors(step, "inputs", {STEP_CHUNK: chunk, STEP_PARAMETERS: row, **common})
        _check_tensors(step, "outputs", {STEP_OUTPUT: chunk})
    else:
        noise = TensorSignature("float32", (None, *specs.noise_shape))
        _check_tensors(graphs["sampler"], "inputs", {NOISE: noise, **common})
        _check_tensors(graphs["sampler"], "outputs", {CHUNK: chunk})
    if "critic" in graphs:
        seen = _check_encoder(specs, graphs["critic_encoder"], CRITIC_CONDITIONING)
        _check_tensors(graphs["critic"], "inputs", {CHUNK: chunk, **seen})
        _check_tensors(graphs["critic"], "outputs", {VALUE: TensorSignature("float32", (None,))})


def _check_encoder(specs: PolicySpecs, graph: GraphSignature, output: str) -> dict[str, TensorSignature]:
    """Every observation in, and the embedded instruction where there is one; one float32 vector or tokens
    out; returns what comes out."""
    window = (None, specs.horizons.observation)
    inputs = {
        name: TensorSignature("float32", (*window, spec.num_features))
        if spec.kind == "state"
        else TensorSignature("uint8", (*window, *spec.shape))
        for name, spec in specs.specs.observation.items()
    }
    if specs.instruction_dim:
        inputs[INSTRUCTION] = TensorSignature("float32", (None, specs.instruction_dim))
    _check_tensors(graph, "inputs", inputs)
    given = graph.outputs[output].shape[1:] if output in graph.outputs else ()
    if not given or None in given:
        raise BundleError(
            f"{graph.file} must give {output!r} with fixed axes after the first, a vector or "
            f"tokens, got {dict(graph.outputs)}"
        )
    conditioning = {output: TensorSignature("float32", (None, *given))}
    _check_tensors(graph, "outputs", conditioning)
    return conditioning


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
