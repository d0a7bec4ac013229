"""What a bundle's graphs, normalisers and specs must agree on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from robopolicy.core.errors import BundleError
from robopolicy.core.language import INSTRUCTION
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.backends.onnx_file import GraphSignature, TensorSignature
from robopolicy.runtime.bundle.manifest import MANIFEST

CONDITIONING, NOISE, CHUNK = "conditioning", "noise", "chunk"
STEP_CHUNK, STEP_PARAMETERS, STEP_OUTPUT = "step_chunk", "step_parameters", "step_output"
PREFIX, PREFIX_WEIGHT = "prefix", "prefix_weight"
CRITIC_CONDITIONING, VALUE = "critic_conditioning", "value"
NORMALISERS, CRITIC_NORMALISERS = "normalisers.json", "critic_normalisers.json"


@dataclasses.dataclass(frozen=True)
class CriticPart:
    """What a bundle's critic looks at, and the statistics of what it was trained on.

    Args:
        specs: the policy's horizons and action with the observations that the critic uses;
            ``instruction_dim`` is 0 where it heeds none. It draws nothing, so its noise has no axes.
    """

    specs: PolicySpecs
    normalisers: Normalisers


def critic_specs_of(policy_specs: PolicySpecs, inputs: Sequence[str]) -> PolicySpecs:
    """The specs of a critic with these inputs of its encoder: observations of the policy, "instruction".

    Raises:
        BundleError: the policy has no such observation, or heeds no instruction where the critic does.
    """
    keys = tuple(name for name in inputs if name != INSTRUCTION)
    told = INSTRUCTION in inputs
    unknown = [key for key in keys if key not in policy_specs.specs.observation]
    if unknown or not keys or (told and not policy_specs.instruction_dim):
        raise BundleError(
            f"{MANIFEST}: the critic looks at {list(inputs)}; of the policy there are "
            f"{[*policy_specs.specs.observation, *([INSTRUCTION] if policy_specs.instruction_dim else [])]}"
        )
    return dataclasses.replace(
        policy_specs,
        specs=policy_specs.specs.select(keys),
        noise_shape=(),
        takes_prefix=False,
        instruction_dim=policy_specs.instruction_dim if told else 0,
    )


def check_contract(
    specs: PolicySpecs,
    normalisers: Normalisers,
    graphs: Mapping[str, GraphSignature],
    parameters: int = 0,
    critic: CriticPart | None = None,
) -> None:
    """Hold normalisers and graphs, by role, against the specs; BundleError names what differs and where.

    Args:
        parameters: of one denoising step, where there is a step graph.
        critic: where there are the graphs of one.
    """
    _check_normalisers(NORMALISERS, specs, normalisers)
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
    if critic is not None:
        _check_normalisers(CRITIC_NORMALISERS, critic.specs, critic.normalisers)
        seen = _check_encoder(critic.specs, graphs["critic_encoder"], CRITIC_CONDITIONING)
        _check_tensors(graphs["critic"], "inputs", {CHUNK: chunk, **seen})
        _check_members(graphs["critic"])


def _check_members(graph: GraphSignature) -> None:
    """One value of each member of the ensemble, for every row."""
    given = graph.outputs[VALUE].shape if VALUE in graph.outputs else ()
    if len(given) != 2 or not given[1]:
        raise BundleError(
            f"{graph.file} must give {VALUE!r} of (rows, members), members fixed, got {dict(graph.outputs)}"
        )
    _check_tensors(graph, "outputs", {VALUE: TensorSignature("float32", (None, given[1]))})


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


def _check_normalisers(file: str, specs: PolicySpecs, normalisers: Normalisers) -> None:
    sizes = {n: s.num_features for n, s in specs.specs.observation.items() if s.kind == "state"}
    if set(normalisers.observation) != set(sizes):
        raise BundleError(
            f"{file} covers {sorted(normalisers.observation)}, the states that it is for are {sorted(sizes)}"
        )
    for name, size in sizes.items():
        _check_affine(file, f"observation {name!r}", normalisers.observation[name], size)
    _check_affine(file, "the action", normalisers.action, specs.specs.action.dim)


def _check_affine(file: str, what: str, affine: Affine, size: int) -> None:
    if len(affine.offset) != size:
        raise BundleError(f"{file} has {len(affine.offset)} dimensions for {what}, specs.json gives {size}")


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
