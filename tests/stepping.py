"""Tiny bundles with a step graph, a prefix and a critic, built with onnx.helper."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx.numpy_helper
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parent / "unit"))
from test_runtime_support import (
    CONDITIONING_DIM,
    OPSET,
    model_bytes,
    tiny_graphs,
    tiny_normalisers,
    tiny_specs,
)

from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime import Bundle, Producer, write_bundle

MEMBERS = 2
#: chunk' = keep * chunk + told * projection(conditioning), then blended with the prefix.
STEPS = ((0.5, 1.0), (0.25, -2.0), (1.5, 0.1))


def step_specs(*, prefix: bool = False) -> PolicySpecs:
    return dataclasses.replace(tiny_specs(), takes_prefix=prefix)


def step_graphs(specs: PolicySpecs, *, critic: bool = False, parameters: int = 2) -> dict[str, bytes]:
    """encoder and step, and where asked for a critic of two members: sum of conditioning + mean of chunk,
    and the same the other way round."""
    graphs = {"encoder": tiny_graphs(specs)["encoder"], "step": _step(specs, parameters)}
    if critic:
        model = onnx.load_model_from_string(graphs["encoder"])
        for node in model.graph.node:
            node.output[:] = ["critic_conditioning" if n == "conditioning" else n for n in node.output]
        model.graph.output[0].name = "critic_conditioning"
        graphs |= {"critic_encoder": model.SerializeToString(), "critic": _critic(specs)}
    return graphs


def projection() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(CONDITIONING_DIM, 24)).astype(np.float32)


def _step(specs: PolicySpecs, parameters: int) -> bytes:
    horizon, dim = specs.chunk_shape
    inputs = [
        _info("step_chunk", ["rows", horizon, dim]),
        _info("conditioning", ["rows", CONDITIONING_DIM]),
        _info("step_parameters", [parameters]),
    ]
    constants = [_constant("w", projection()), _constant("shape", np.array([-1, horizon, dim]))]
    constants += [_constant("zero", np.array(0)), _constant("one", np.array(1))]
    nodes = [
        helper.make_node("Gather", ["step_parameters", "zero"], ["keep"]),
        helper.make_node("Gather", ["step_parameters", "one"], ["told"]),
        helper.make_node("MatMul", ["conditioning", "w"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["mean"]),
        helper.make_node("Mul", ["keep", "step_chunk"], ["kept"]),
        helper.make_node("Mul", ["told", "mean"], ["added"]),
        helper.make_node("Add", ["kept", "added"], ["free" if specs.takes_prefix else "step_output"]),
    ]
    if specs.takes_prefix:
        inputs += [_info("prefix", ["rows", horizon, dim]), _info("prefix_weight", ["rows", horizon])]
        constants.append(_constant("last", np.array([2])))
        nodes += [
            helper.make_node("Unsqueeze", ["prefix_weight", "last"], ["weight"]),
            helper.make_node("Sub", ["prefix", "free"], ["gap"]),
            helper.make_node("Mul", ["weight", "gap"], ["pull"]),
            helper.make_node("Add", ["free", "pull"], ["step_output"]),
        ]
    output = _info("step_output", ["rows", horizon, dim])
    return model_bytes(helper.make_graph(nodes, "step", inputs, [output], constants), OPSET)


def _critic(specs: PolicySpecs) -> bytes:
    horizon, dim = specs.chunk_shape
    nodes = [
        helper.make_node("ReduceSum", ["critic_conditioning", "axes"], ["seen"], keepdims=1),
        helper.make_node("ReduceMean", ["chunk"], ["all_done"], axes=[1, 2], keepdims=1),
        helper.make_node("Squeeze", ["all_done", "axes"], ["done"]),
        helper.make_node("Add", ["seen", "done"], ["first"]),
        helper.make_node("Neg", ["first"], ["second"]),
        helper.make_node("Concat", ["first", "second"], ["value"], axis=1),
    ]
    inputs = [
        _info("critic_conditioning", ["rows", CONDITIONING_DIM]),
        _info("chunk", ["rows", horizon, dim]),
    ]
    constants = [_constant("axes", np.array([1]))]
    graph = helper.make_graph(nodes, "critic", inputs, [_info("value", ["rows", MEMBERS])], constants)
    return model_bytes(graph, OPSET)


def write_step_bundle(
    directory: Path, *, prefix: bool = False, critic: bool = False, **changes: Any
) -> Bundle:
    specs = step_specs(prefix=prefix)
    content: dict[str, Any] = {
        "policy_specs": specs,
        "normalisers": tiny_normalisers(specs),
        "graphs": step_graphs(specs, critic=critic),
        "policy": "tiny",
        "denoising_steps": len(STEPS),
        "producer": Producer("test"),
        "steps": STEPS,
    }
    if critic:
        content["critic_inputs"] = tuple(specs.specs.observation)
        content["critic_normalisers"] = critic_normalisers(specs)
    return write_bundle(directory, **{**content, **changes})


def critic_normalisers(specs: PolicySpecs) -> Normalisers:
    """Other statistics than the policy's, as of other episodes."""
    fitted = tiny_normalisers(specs)
    wider = Affine(fitted.action.offset, tuple(1.5 * scale for scale in fitted.action.scale))
    return dataclasses.replace(fitted, action=wider)


def _info(name: str, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _constant(name: str, value: np.ndarray) -> Any:
    return onnx.numpy_helper.from_array(value, name)
