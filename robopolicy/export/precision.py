"""Graphs in less than single precision: half precision throughout, or 8-bit weights alone."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from robopolicy.core.errors import ConfigError, MissingDependencyError
from robopolicy.runtime.bundle.manifest import PRECISIONS

#: Operators whose weights dominate, the input that holds them, and their axis of output channels.
_WEIGHTED = {"Conv": (1, 0), "ConvTranspose": (1, 1), "Gemm": (1, 1), "MatMul": (1, -1)}
#: Smaller weights save nothing worth a rounding error.
_LEAST_ELEMENTS = 256
#: What may lie between a bank of weights and the product with the one that is picked.
_RESHAPED = {"Gather", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_INT8 = 127


def with_precision(graphs: Mapping[str, bytes], precision: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """Every graph in "fp32" (as it is), "fp16" or "int8"; inputs and outputs stay float32 and uint8.

    fp16 is for GPUs: ONNX Runtime's CPU kernels mostly compute in float32 and convert around it. int8 makes
    files a quarter of their size; an engine scales the weights back and multiplies in float32, except that
    ONNX Runtime 1.31 on a CPU fuses the two, rounds activations to 8 bits as well, and so becomes faster.

    Returns:
        the graphs, and the precision of each: one without weights stays as it is.
    Raises:
        ConfigError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r} is not one of {PRECISIONS}")
    convert = {"fp32": None, "fp16": to_fp16, "int8": to_int8_weights}[precision]
    converted, kept = dict(graphs), dict.fromkeys(graphs, "fp32")
    for role, data in graphs.items():
        model = onnx.load_model_from_string(data)
        if convert is not None and any(node.op_type in _WEIGHTED for node in model.graph.node):
            converted[role], kept[role] = convert(model).SerializeToString(), precision
    return converted, kept


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and arithmetic in float16, by ONNX Runtime's converter; it keeps what it knows to be unsafe."""
    try:
        converter = importlib.import_module("onnxruntime.transformers.float16")
        sorter = importlib.import_module("onnxruntime.transformers.onnx_model")
    except ImportError as error:
        raise MissingDependencyError(
            f"fp16 needs onnxruntime's converter: {error}; pip install 'robopolicy[export]'"
        ) from error
    converted: onnx.ModelProto = converter.convert_float_to_float16(model, keep_io_types=True)
    sorter.OnnxModel(converted).topological_sort()  # the converter appends its casts
    onnx.checker.check_model(converted)
    return converted


def to_int8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constant weights of matrix products and convolutions as int8, symmetric, one scale per output channel.

    One DequantizeLinear per weight gives back float32, however often an unrolled loop uses it; standard
    operators, which every engine has. Of a bank of experts' weights, out of which a step picks, int8 is
    picked and then given back; the experts share the scales of their last axis.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    axes: dict[str, int | None] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in constants:
                axis = _channel_axis(node, index, len(constants[name].dims))
                axes[name] = axis if axes.get(name, axis) == axis else None  # used in two ways
    for name in axes:
        if _is_bank(graph, name, ndim := len(constants[name].dims)):
            axes[name] = ndim - 1
    for name, axis in axes.items():
        tensor = constants[name]
        if (
            axis is None
            or tensor.data_type != onnx.TensorProto.FLOAT
            or np.prod(tensor.dims) < _LEAST_ELEMENTS
        ):
            continue
        quantised, scale = quantise(numpy_helper.to_array(tensor), axis)
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(quantised, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        picks = [node for node in graph.node if name in node.input and node.op_type == "Gather"]
        if not picks:
            graph.node.insert(0, _dequantise(name, name, axis))
        for pick in picks:  # after it, so that no other expert is given back
            picked = pick.output[0]
            pick.input[0], pick.output[0] = f"{name}_int8", f"{picked}_int8"
            at = list(graph.node).index(pick)
            graph.node.insert(at + 1, _dequantise(name, picked, -1))
    onnx.checker.check_model(model)
    return model


def _dequantise(weight: str, value: str, axis: int) -> onnx.NodeProto:
    """From ``value``_int8 to ``value``, with the scales of a weight."""
    inputs = [f"{value}_int8", f"{weight}_scale"]
    return helper.make_node("DequantizeLinear", inputs, [value], f"{value}_dequantise", axis=axis)


def _is_bank(graph: onnx.GraphProto, name: str, ndim: int) -> bool:
    """Whether this constant is stacked matrices, of which nodes pick along another axis than the last, and
    multiply by nothing but what they picked."""
    uses = [node for node in graph.node if name in node.input]
    picked = all(
        node.op_type == "Gather" and node.input[0] == name and _gather_axis(node) % ndim != ndim - 1
        for node in uses
    )
    reached = [output for node in uses for output in node.output]
    while picked and reached:
        value = reached.pop()
        for node in graph.node:
            if value in node.input and node.op_type in _RESHAPED and node.input[0] == value:
                reached.extend(node.output)
            elif value in node.input and node.op_type not in ("MatMul", "Gemm"):
                return False
    return ndim > 2 and picked


def _gather_axis(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), 0)


def quantise(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """weight ~ int8 * scale, with one scale for each slice along ``axis``; off by at most scale / 2."""
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    largest = np.abs(weight).max(axis=others)
    scale = (np.where(largest > 0, largest, 1.0) / _INT8).astype(np.float32)
    shape = [-1 if i == axis % weight.ndim else 1 for i in range(weight.ndim)]
    quantised = np.rint(weight / scale.reshape(shape)).clip(-_INT8, _INT8).astype(np.int8)
    return quantised, scale


def _channel_axis(node: onnx.NodeProto, index: int, ndim: int) -> int | None:
    """Axis of the output channels in the constant at this input; None when it is no such weight."""
    if node.op_type == "MatMul" and index == 0 and ndim >= 2:  # the weight on the left
        return ndim - 2
    if node.op_type not in _WEIGHTED or _WEIGHTED[node.op_type][0] != index or ndim < 2:
        return None
    attributes: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Gemm":
        return 0 if attributes.get("transB") else 1
    if node.op_type == "ConvTranspose" and attributes.get("group", 1) != 1:
        return None  # its second axis counts the channels of one group
    return _WEIGHTED[node.op_type][1] % ndim
