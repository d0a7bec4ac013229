"""A policy as two ONNX graphs: an encoder run once per observation, and the whole denoising loop."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from robopolicy.core.errors import MissingDependencyError
from robopolicy.models.policy_module import PolicyModule

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


class EncoderGraph(nn.Module):
    """Positional inputs, in the specs' order, to ``conditioning``."""

    def __init__(self, module: PolicyModule) -> None:
        super().__init__()
        self.module = module
        self.names = list(module.policy_specs.specs.observation)

    def forward(self, *arrays: Tensor) -> Tensor:
        return self.module.encode(dict(zip(self.names, arrays)))


class SamplerGraph(nn.Module):
    """All of ``sample``, for policies that define it themselves."""

    def __init__(self, module: PolicyModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, conditioning: Tensor, noise: Tensor) -> Tensor:
        return self.module.sample(conditioning, noise)


class StepGraph(nn.Module):
    """One denoising step."""

    def __init__(self, module: PolicyModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, chunk: Tensor, conditioning: Tensor, parameters: Tensor) -> Tensor:
        return self.module.denoise(chunk, conditioning, parameters)


def export_graphs(module: PolicyModule) -> dict[str, bytes]:
    """ONNX graphs "encoder" and "sampler", first axes dynamic, as ``runtime.bundle`` asks for them."""
    module = module.cpu().eval()
    specs = module.policy_specs
    window = specs.horizons.observation
    inputs: dict[str, Tensor] = {}
    for name, spec in specs.specs.observation.items():
        if spec.kind == "image":
            inputs[name] = torch.zeros((2, window, *spec.shape), dtype=torch.uint8)
        else:
            inputs[name] = torch.zeros((2, window, spec.num_features))
    rows = {0: torch.export.Dim("rows", min=1)}
    encoder = _export(
        EncoderGraph(module),
        tuple(inputs.values()),
        (tuple(rows for _ in inputs),),
        list(inputs),
        "conditioning",
    )
    sampler = _export_steps(module) if _iterates(module) else _export_sample(module)
    return {"encoder": encoder.SerializeToString(), "sampler": sampler.SerializeToString()}


def _iterates(module: PolicyModule) -> bool:
    """Whether ``sample`` is the loop over ``denoise`` that every PolicyModule inherits."""
    return type(module).sample is PolicyModule.sample


def _export_steps(module: PolicyModule) -> onnx.ModelProto:
    """One step traced, then repeated for every row of ``module.steps``."""
    rows = {0: torch.export.Dim("rows", min=1)}
    chunk = torch.zeros(2, *module.policy_specs.chunk_shape)
    conditioning = torch.zeros(2, module.conditioning_dim)
    step = _export(
        StepGraph(module),
        (chunk, conditioning, module.steps[0]),
        (rows, rows, None),
        ["step_chunk", "conditioning", "step_parameters"],
        "step_output",
    )
    return unroll(
        step,
        module.steps.numpy(),
        carried="step_chunk",
        constant="step_parameters",
        output="step_output",
        first="noise",
        last="chunk",
    )


def _export_sample(module: PolicyModule) -> onnx.ModelProto:
    rows = {0: torch.export.Dim("rows", min=1)}
    arguments = (torch.zeros(2, module.conditioning_dim), torch.zeros(2, *module.policy_specs.noise_shape))
    return _export(SamplerGraph(module), arguments, (rows, rows), ["conditioning", "noise"], "chunk")


def _export(
    graph: nn.Module, arguments: tuple[Tensor, ...], shapes: object, inputs: list[str], output: str
) -> onnx.ModelProto:
    with _quiet():
        program = torch.onnx.export(
            graph,
            arguments,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=inputs,
            output_names=[output],
            opset_version=OPSET,
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
