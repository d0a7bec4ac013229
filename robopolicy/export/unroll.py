"""Repeat one exported denoising step: the network is traced once, its weights are stored once."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from robopolicy.core.errors import ConfigError


def unroll(
    step: onnx.ModelProto,
    parameters: NDArray[np.float32],
    *,
    carried: str,
    constant: str,
    output: str,
    first: str,
    last: str,
) -> onnx.ModelProto:
    """A graph that runs ``step`` once per row of ``parameters``.

    Args:
        step: graph with inputs ``carried``, ``constant`` and others, and the one output ``output``.
        parameters: (steps, p); row i feeds the input ``constant`` of step i.
        carried: input that takes the previous step's output.
        first, last: names of the new graph's carried input and of its output.
    Raises:
        ConfigError: a node holds a graph of its own (If, Loop), whose names this does not rewrite.
    """
    nested = [n.name for n in step.graph.node if any(a.HasField("g") or a.graphs for a in n.attribute)]
    if nested:
        raise ConfigError(f"a denoising step with control flow cannot be repeated: {nested}")
    graph = step.graph
    shared = {t.name for t in graph.initializer} | {i.name for i in graph.input} | {""}
    nodes, rows = [], []
    value = first
    for index, row in enumerate(parameters):
        row_name = f"parameters_{index}"
        rows.append(numpy_helper.from_array(np.asarray(row, dtype=np.float32), row_name))
        names = {carried: value, constant: row_name}
        value = last if index == len(parameters) - 1 else f"chunk_{index}"
        names[output] = value
        for node in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"step{index}/{node.name}"
            for field in (copy.input, copy.output):
                field[:] = [names.get(n, n if n in shared else f"step{index}/{n}") for n in field]
            nodes.append(copy)
    inputs = [_renamed(i, carried, first) for i in graph.input if i.name != constant]
    outputs = [_renamed(graph.output[0], output, last)]
    unrolled = helper.make_graph(nodes, graph.name, inputs, outputs, [*graph.initializer, *rows])
    model = helper.make_model(
        unrolled, opset_imports=step.opset_import, functions=step.functions, ir_version=step.ir_version
    )
    onnx.checker.check_model(model)
    return model


def _renamed(info: onnx.ValueInfoProto, old: str, new: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(info)
    if copy.name == old:
        copy.name = new
    return copy
