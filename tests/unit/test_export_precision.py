"""Less than single precision: smaller weights, the same boundaries, a known error."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from robopolicy.core.errors import ConfigError
from robopolicy.export.precision import quantise, with_precision


def weighted(rng: np.random.Generator) -> bytes:
    """A product, a convolution, a transposed one and a Gemm, then the product again; and a plain sum."""
    shapes = {
        "m": (16, 24),
        "left": (32, 12),
        "c": (20, 24, 3),
        "t": (20, 18, 4),
        "g": (40, 216),
        "small": (40, 2),
    }
    constants = [
        numpy_helper.from_array(rng.normal(size=s).astype(np.float32) * np.float32(0.1), n)
        for n, s in shapes.items()
    ]
    constants.append(numpy_helper.from_array(np.array([0, -1]), "flat"))
    nodes = [
        helper.make_node("MatMul", ["x", "m"], ["a"]),  # (rows, 12, 24)
        helper.make_node("MatMul", ["left", "a"], ["l"]),  # (rows, 32, 24)
        helper.make_node("Transpose", ["l"], ["b"], perm=[0, 2, 1]),  # (rows, 24, 32)
        helper.make_node("Conv", ["b", "c"], ["d"], kernel_shape=[3], strides=[6]),  # (rows, 20, 5)
        helper.make_node("ConvTranspose", ["d", "t"], ["e"], kernel_shape=[4], strides=[2]),  # (rows, 18, 12)
        helper.make_node("Reshape", ["e", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["h"], transB=1),
        helper.make_node("MatMul", ["h", "small"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "weighted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 12, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize(("precision", "size", "error"), [("fp16", 0.55, 5e-3), ("int8", 0.35, 5e-2)])
def test_weights_shrink_and_results_stay_close(precision: str, size: float, error: float) -> None:
    rng = np.random.default_rng(0)
    model = weighted(rng)
    graphs, told = with_precision({"sampler": model}, precision)
    assert told == {"sampler": precision}
    assert len(graphs["sampler"]) < size * len(model)
    x = rng.normal(size=(3, 12, 16)).astype(np.float32)
    expected, found = run(model, x), run(graphs["sampler"], x)
    assert found.dtype == np.float32
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-7 < difference < error


def test_each_output_channel_has_its_scale() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
    weight[:, 2] *= 1000
    weight[:, 4] = 0
    for axis in (1, -2):
        quantised, scale = quantise(weight, axis)
        assert quantised.dtype == np.int8 and scale.shape == (5,)
        error = np.abs(quantised * scale[None, :, None] - weight).max(axis=(0, 2))
        assert (error <= scale / 2 * 1.001).all()
        assert np.abs(quantised).max(axis=(0, 2)).tolist() == [127, 127, 127, 127, 0]


def test_int8_weights_are_restored_once_along_their_channels() -> None:
    graphs, _ = with_precision({"sampler": weighted(np.random.default_rng(0))}, "int8")
    model = onnx.load_model_from_string(graphs["sampler"])
    restored = {n.output[0]: n.attribute[0].i for n in model.graph.node if n.op_type == "DequantizeLinear"}
    assert restored == {"m": 1, "left": 0, "c": 0, "t": 1, "g": 0}  # "small" is left as it is
    assert not {"m", "left", "c", "t", "g"} & {t.name for t in model.graph.initializer}


def test_a_graph_without_weights_stays_as_it_is() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    for precision in ("fp32", "fp16", "int8"):
        assert with_precision({"encoder": data}, precision) == ({"encoder": data}, {"encoder": "fp32"})


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="'fp8'"):
        with_precision({}, "fp8")


def test_int8_is_picked_out_of_a_bank_of_experts() -> None:
    """Matrices that a step picks, one by one or several side by side; a table of biases stays as it is."""
    rng = np.random.default_rng(0)
    banks = {
        "one": rng.normal(size=(3, 16, 24)),
        "some": rng.normal(size=(24, 4, 12)),
        "bias": rng.normal(size=(3, 16, 16)),
    }
    constants = [numpy_helper.from_array(bank.astype(np.float32), name) for name, bank in banks.items()]
    indices = (("first", np.array([2])), ("zero", np.array(0)), ("two", np.array([3, 1])))
    constants += [numpy_helper.from_array(value, name) for name, value in indices]
    constants.append(numpy_helper.from_array(np.array([24, 24]), "wide"))
    nodes = [
        helper.make_node("Gather", ["bias", "zero"], ["shift"]),
        helper.make_node("Add", ["x", "shift"], ["moved"]),
        helper.make_node("Gather", ["one", "first"], ["row"]),
        helper.make_node("Gather", ["row", "zero"], ["matrix"]),
        helper.make_node("MatMul", ["moved", "matrix"], ["a"]),
        helper.make_node("Gather", ["some", "two"], ["both"], axis=1),
        helper.make_node("Reshape", ["both", "wide"], ["side_by_side"]),
        helper.make_node("MatMul", ["a", "side_by_side"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 16])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 24])]
    made = helper.make_graph(nodes, "banks", inputs, outputs, constants)
    opset = [helper.make_opsetid("", 20)]
    data = helper.make_model(made, opset_imports=opset, ir_version=9).SerializeToString()
    graphs, _ = with_precision({"step": data}, "int8")
    stored = {t.name: t.data_type for t in onnx.load_model_from_string(graphs["step"]).graph.initializer}
    assert not {"one", "some"} & set(stored) and stored["bias"] == TensorProto.FLOAT
    assert stored["one_int8"] == stored["some_int8"] == TensorProto.INT8
    x = rng.normal(size=(16, 16)).astype(np.float32)
    expected, found = run(data, x), run(graphs["step"], x)
    assert 1e-7 < np.abs(found - expected).max() / np.abs(expected).max() < 2e-2
