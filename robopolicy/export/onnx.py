"""A policy as two ONNX graphs: an encoder run once per observation, and the denoising loop or one step."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robopolicy.core.errors import ConfigError, MissingDependencyError
from robopolicy.core.language import INSTRUCTION
from robopolicy.models.policy_module import PolicyModule, SamplingModule

try:
    import onnx
    import onnxscript  # noqa: F401  (torch's exporter needs it)
except ImportError as _error:
    raise MissingDependencyError(
        "export needs onnx and onnxscript: pip install 'robopolicy[export]'"
    ) from _error

from robopolicy.export.unroll import unroll

#: Read by onnxruntime 1.23, the oldest runtime supported.
OPSET = 20
FORMS = ("unrolled", "step")
_ROWS = {0: torch.export.Dim("rows", min=1)}
_PREFIX = ("prefix", "prefix_weight")


class EncoderGraph(nn.Module):
    """Positional inputs, in the specs' order, the instruction last, to ``conditioning``, prepared."""

    def __init__(self, module: SamplingModule) -> None:
        super().__init__()
        self.module = module
        self.names = list(module.policy_specs.specs.observation)
        if module.policy_specs.instruction_dim:
            self.names.append(INSTRUCTION)

    def forward(self, *arrays: Tensor) -> Tensor:
        return self.module.prepare(self.module.encode(dict(zip(self.names, arrays))))


class SamplerGraph(nn.Module):
    """All of ``sample``, for policies that define it themselves."""

    def __init__(self, module: SamplingModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, conditioning: Tensor, noise: Tensor, *prefix: Tensor) -> Tensor:
        return self.module.sample(conditioning, noise, *prefix)


class StepGraph(nn.Module):
    """One denoising step."""

    def __init__(self, module: SamplingModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, chunk: Tensor, conditioning: Tensor, parameters: Tensor, *prefix: Tensor) -> Tensor:
        return self.module.denoise(chunk, conditioning, parameters, *prefix)


def export_graphs(module: PolicyModule, *, form: str = "unrolled", opset: int = OPSET) -> dict[str, bytes]:
    """ONNX graphs by role, first axes dynamic, as ``runtime.bundle`` asks for them.

    Args:
        module: what is exported is its ``inference_form``; a policy with a ``sample`` of its own is
            exported as it is.
        form: "unrolled" gives "encoder" and "sampler", the whole denoising loop in one graph; "step" gives
            "encoder" and "step", one iteration, to be run for every row of ``step_rows(module)``.
        opset: of the ONNX default domain.
    Raises:
        ConfigError: unknown form, or no iteration to give as a step.
    """
    if form not in FORMS:
        raise ConfigError(f"form {form!r} is not one of {FORMS}")
    if form == "step" and not module.iterates:
        raise ConfigError(f"{type(module).__name__} samples in its own way; it has no step to export")
    exported = _exported(module.cpu().eval()).eval()
    encoder, conditioning = _export_encoder(exported, opset)
    if not exported.iterates:
        last = {"sampler": _export_sample(exported, conditioning, opset)}
    elif form == "step":
        last = {"step": _export_step(exported, conditioning, opset)}
    else:
        last = {"sampler": _unrolled(_export_step(exported, conditioning, opset), exported)}
    return {role: model.SerializeToString() for role, model in {"encoder": encoder, **last}.items()}


def step_rows(module: PolicyModule) -> NDArray[np.float32]:
    """(denoising_steps, p): what ``step_parameters`` takes, run after run, in the form "step"."""
    rows: NDArray[np.float32] = _exported(module).steps.cpu().numpy()
    return rows


def _exported(module: PolicyModule) -> SamplingModule:
    return module.inference_form() if module.iterates else module


def _export_encoder(module: SamplingModule, opset: int) -> tuple[onnx.ModelProto, Tensor]:
    """The graph, and an example of what it gives."""
    specs = module.policy_specs
    window = specs.horizons.observation
    inputs: dict[str, Tensor] = {}
    for name, spec in specs.specs.observation.items():
        if spec.kind == "image":
            inputs[name] = torch.zeros((2, window, *spec.shape), dtype=torch.uint8)
        else:
            inputs[name] = torch.zeros((2, window, spec.num_features))
    if specs.instruction_dim:
        inputs[INSTRUCTION] = torch.zeros((2, specs.instruction_dim))
    graph, arrays = EncoderGraph(module), tuple(inputs.values())
    model = to_onnx(graph, arrays, (tuple(_ROWS for _ in inputs),), list(inputs), "conditioning", opset)
    with torch.no_grad():
        return model, graph(*arrays)


def _export_step(module: SamplingModule, conditioning: Tensor, opset: int) -> onnx.ModelProto:
    chunk = torch.zeros(2, *module.policy_specs.chunk_shape)
    prefix = _prefix(module)
    return to_onnx(
        StepGraph(module),
        (chunk, conditioning, module.steps[0], *prefix),
        (_ROWS, _ROWS, None, *_shapes(prefix)),
        ["step_chunk", "conditioning", "step_parameters", *_PREFIX[: len(prefix)]],
        "step_output",
        opset,
    )


def _unrolled(step: onnx.ModelProto, module: SamplingModule) -> onnx.ModelProto:
    """The step, repeated for every row of ``module.steps``."""
    return unroll(
        step,
        module.steps.numpy(),
        carried="step_chunk",
        constant="step_parameters",
        output="step_output",
        first="noise",
        last="chunk",
    )


def _export_sample(module: SamplingModule, conditioning: Tensor, opset: int) -> onnx.ModelProto:
    noise, prefix = torch.zeros(2, *module.policy_specs.noise_shape), _prefix(module)
    return to_onnx(
        SamplerGraph(module),
        (conditioning, noise, *prefix),
        (_ROWS, _ROWS, *_shapes(prefix)),
        ["conditioning", "noise", *_PREFIX[: len(prefix)]],
        "chunk",
        opset,
    )


def _prefix(module: SamplingModule) -> tuple[Tensor, ...]:
    """Examples of the two further inputs of policies that take a prefix."""
    specs = module.policy_specs
    if not specs.takes_prefix:
        return ()
    return torch.zeros(2, *specs.chunk_shape), torch.zeros(2, specs.chunk_shape[0])


def _shapes(prefix: tuple[Tensor, ...]) -> tuple[object, ...]:
    """Dynamic axes of the arguments after the named ones; nothing when there are none."""
    return (tuple(_ROWS for _ in prefix),) if prefix else ()


def to_onnx(
    graph: nn.Module,
    arguments: tuple[Tensor, ...],
    shapes: object,
    inputs: list[str],
    output: str,
    opset: int,
) -> onnx.ModelProto:
    with _quiet():
        program = torch.onnx.export(
            graph,
            arguments,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=inputs,
            output_names=[output],
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _strip_traces(model)
    return model


def _strip_traces(model: onnx.ModelProto) -> None:
    """Drop the stack traces the exporter leaves on every node: a fifth of the file, with local paths."""
    graph = model.graph
    for item in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.initializer,
        *graph.value_info,
    ):
        item.doc_string = ""
        del item.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own internals and about torchvision, which we do not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
