"""What an ONNX file says about itself, read from its bytes without the onnx package.

A robot has an inference engine but not ``onnx``; and an engine resolves external tensor data against
the working directory, so that must be refused before the engine sees the bytes. The format is protocol
buffers: https://protobuf.dev/programming-guides/encoding and onnx/onnx.proto name the field numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from robopolicy.core.errors import BundleError

#: TensorProto.DataType to numpy names; others appear as "onnx:NUMBER" and match no spec.
_TYPES = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
_EXTERNAL = 1  # TensorProto.DataLocation
_GRAPH, _OPSET, _FUNCTION = 7, 8, 25  # ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE = 1, 5, 11, 12, 15  # GraphProto
_FUNCTION_NODE = 7  # FunctionProto
_ATTRIBUTE = 5  # NodeProto
_IN_TENSORS, _IN_GRAPHS, _IN_SPARSE = (5, 10), (6, 11), (22, 23)  # AttributeProto: one, many
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14  # TensorProto


@dataclass(frozen=True)
class TensorSignature:
    """One graph input or output; ``None`` in the shape is a dynamic axis."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class GraphSignature:
    """Names, types and shapes at a graph's boundary, and the default operator set's version.

    Args:
        file: its name, for messages.
    """

    file: str
    inputs: Mapping[str, TensorSignature]
    outputs: Mapping[str, TensorSignature]
    opset: int


def read_signature(name: str, data: bytes) -> GraphSignature:
    """Parse one model.

    Args:
        name: of the file, for messages.
        data: the whole file.
    Raises:
        BundleError: not a complete ONNX model, or its tensors live in other files.
    """
    try:
        return _read_model(name, memoryview(data))
    except (IndexError, ValueError, TypeError, RecursionError) as error:
        raise BundleError(f"{name} is not a readable ONNX model: {error}") from error


def _read_model(name: str, model: memoryview) -> GraphSignature:
    graphs, opset = [], 0
    for field, value in _fields(model):
        if field == _GRAPH:
            graphs.append(_message(value))
        elif field == _OPSET:
            entry = dict(_fields(_message(value)))
            if _text(entry.get(1, memoryview(b""))) in ("", "ai.onnx"):
                opset = _number(entry.get(2, 0))
        elif field == _FUNCTION:
            for inner, node in _fields(_message(value)):
                if inner == _FUNCTION_NODE:
                    _refuse_external_in_node(name, _message(node))
    if len(graphs) != 1 or not opset:
        raise ValueError(f"{len(graphs)} graphs and default operator set {opset}")
    inputs: dict[str, TensorSignature] = {}
    outputs: dict[str, TensorSignature] = {}
    constants: set[str] = set()
    for field, value in _fields(graphs[0]):
        if field == _INPUT:
            inputs.update([_value_info(_message(value))])
        elif field == _OUTPUT:
            outputs.update([_value_info(_message(value))])
        elif field == _INITIALIZER:
            constants.add(_tensor_name(_message(value)))
    _refuse_external(name, graphs[0])
    # Old exporters list weights among the inputs as well; they are not the caller's to give.
    return GraphSignature(name, {k: v for k, v in inputs.items() if k not in constants}, outputs, opset)


def _refuse_external(name: str, graph: memoryview) -> None:
    for field, value in _fields(graph):
        if field == _INITIALIZER:
            _refuse_external_tensor(name, _message(value))
        elif field == _SPARSE:
            _refuse_external_sparse(name, _message(value))
        elif field == _NODE:
            _refuse_external_in_node(name, _message(value))


def _refuse_external_in_node(name: str, node: memoryview) -> None:
    for field, attribute in _fields(node):
        if field != _ATTRIBUTE:
            continue
        for inner, value in _fields(_message(attribute)):
            if inner in _IN_TENSORS:
                _refuse_external_tensor(name, _message(value))
            elif inner in _IN_SPARSE:
                _refuse_external_sparse(name, _message(value))
            elif inner in _IN_GRAPHS:
                _refuse_external(name, _message(value))


def _refuse_external_sparse(name: str, sparse: memoryview) -> None:
    for field, value in _fields(sparse):
        if field in (1, 2):  # values, indices
            _refuse_external_tensor(name, _message(value))


def _refuse_external_tensor(name: str, tensor: memoryview) -> None:
    for field, value in _fields(tensor):
        if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value == _EXTERNAL):
            raise BundleError(
                f"{name} keeps tensor {_tensor_name(tensor)!r} in another file; export it with weights inside"
            )


def _tensor_name(tensor: memoryview) -> str:
    return _text(dict(_fields(tensor)).get(_TENSOR_NAME, memoryview(b"")))


def _value_info(info: memoryview) -> tuple[str, TensorSignature]:
    fields = dict(_fields(info))
    tensor_type = dict(_fields(_message(dict(_fields(_message(fields[2])))[1])))
    number = _number(tensor_type.get(1, 0))
    shape: list[int | None] = []
    for field, dimension in _fields(_message(tensor_type.get(2, memoryview(b"")))):
        if field == 1:
            size = dict(_fields(_message(dimension))).get(1)
            shape.append(None if size is None else _number(size))
    return _text(fields[1]), TensorSignature(_TYPES.get(number, f"onnx:{number}"), tuple(shape))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value: an integer, or the bytes of a nested message, text or packed array."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        value: int | memoryview
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 2, 5):
            size, at = (8, at) if kind == 1 else (4, at) if kind == 5 else _varint(message, at)
            if at + size > len(message):
                raise ValueError("it ends inside a field")
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"wire type {kind}")
        yield key >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return result, at
    raise ValueError("a number is too long")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message is due")
    return value


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("a message where a number is due")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
