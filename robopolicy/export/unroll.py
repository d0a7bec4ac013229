"""Repeat one exported denoising step: the network is traced once, its weights are stored once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from robopolicy.core.errors import ConfigError

#: Operators that only pick or rearrange values: done beforehand where a step's parameters decide.
_MOVES = {"Cast", "Concat", "Constant", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"} | {
    "Transpose",
    "Unsqueeze",
}


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

    What a step picks from its weights by its row alone (an expert's matrix out of a bank of them) is picked
    here, so that engines see constants, which they pack once. Each value is stored once, however many steps
    use it, and nothing is stored that no step uses.

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
    known = _Known(step, constant)
    nodes = []
    value = first
    for index, row in enumerate(np.asarray(parameters, dtype=np.float32)):
        names = {carried: value, **known.at(row)}
        value = last if index == len(parameters) - 1 else f"chunk_{index}"
        names[output] = value
        for node in known.rest:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"step{index}/{node.name}"
            for field in (copy.input, copy.output):
                field[:] = [names.get(n, n if n in shared else f"step{index}/{n}") for n in field]
            nodes.append(copy)
    used = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in (*graph.initializer, *known.stored) if tensor.name in used]
    inputs = [_renamed(i, carried, first) for i in graph.input if i.name != constant]
    outputs = [_renamed(graph.output[0], output, last)]
    unrolled = helper.make_graph(nodes, graph.name, inputs, outputs, weights)
    model = helper.make_model(
        unrolled, opset_imports=step.opset_import, functions=step.functions, ir_version=step.ir_version
    )
    onnx.checker.check_model(model)
    return model


class _Known:
    """The part of a step that follows from its parameters, worked out row by row.

    Args:
        constant: the input that takes the parameters.
    """

    def __init__(self, step: onnx.ModelProto, constant: str) -> None:
        graph = step.graph
        picked, self.rest = _split(graph, constant)
        wanted = {name for node in self.rest for name in node.input}
        made = [name for node in picked for name in node.output if name in wanted]
        self._constant, self._names = constant, [constant, *made]
        self._evaluator = ReferenceEvaluator(
            helper.make_model(
                helper.make_graph(
                    picked,
                    "picked",
                    [i for i in graph.input if i.name == constant],
                    [onnx.ValueInfoProto(name=name) for name in made],
                    list(_needed(graph, picked)),
                ),
                opset_imports=step.opset_import,
                ir_version=step.ir_version,
            )
        )
        self._by_content: dict[bytes, str] = {}
        self.stored: list[onnx.TensorProto] = []

    def at(self, row: NDArray[np.float32]) -> dict[str, str]:
        """Names in the step to names in ``stored``, for one row of parameters."""
        found = [row, *self._evaluator.run(None, {self._constant: row})]
        return {name: self._store(np.asarray(value)) for name, value in zip(self._names, found)}

    def _store(self, value: NDArray[Any]) -> str:
        content = np.ascontiguousarray(value).tobytes()
        key = hashlib.sha256(f"{value.dtype}{value.shape}".encode() + content).digest()
        if key not in self._by_content:
            self._by_content[key] = f"constant_{len(self._by_content)}"
            self.stored.append(numpy_helper.from_array(value, self._by_content[key]))
        return self._by_content[key]


def _split(graph: onnx.GraphProto, constant: str) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Nodes that follow from weights and ``constant`` by moves alone, and the others; both in order."""
    known = {tensor.name for tensor in graph.initializer} | {constant, ""}
    picked, rest = [], []
    for node in graph.node:
        if node.op_type in _MOVES and known.issuperset(node.input):
            picked.append(node)
            known.update(node.output)
        else:
            rest.append(node)
    return picked, rest


def _needed(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    used = {name for node in nodes for name in node.input}
    return (tensor for tensor in graph.initializer if tensor.name in used)


def _renamed(info: onnx.ValueInfoProto, old: str, new: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(info)
    if copy.name == old:
        copy.name = new
    return copy
