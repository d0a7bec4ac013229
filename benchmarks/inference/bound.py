"""What the machine could do at best: its rate at matrix products, through the same engine."""

from __future__ import annotations

import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from robopolicy.export.onnx import OPSET
from robopolicy.runtime.backends.onnxruntime import OnnxRuntimeBackend

#: (rows, inner, columns): a large product, and one of the sizes that such networks have.
SHAPES = ((1024, 1024, 1024), (256, 1280, 256))


class ProductRate:
    """Products of a matrix with a constant one, whose best rate over a run is the bound."""

    def __init__(self, threads: int) -> None:
        self._runs = [(shape, _product(shape, threads), np.ones(shape[:2], np.float32)) for shape in SHAPES]
        self.gflops = 0.0

    def turn(self) -> None:
        for (rows, inner, columns), backend, left in self._runs:
            backend.run({"x": left})
            for _ in range(3):
                started = time.perf_counter_ns()
                backend.run({"x": left})
                taken = time.perf_counter_ns() - started
                self.gflops = max(self.gflops, 2 * rows * inner * columns / taken)


def _product(shape: tuple[int, int, int], threads: int) -> OnnxRuntimeBackend:
    rows, inner, columns = shape
    right = numpy_helper.from_array(np.ones((inner, columns), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inner])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, columns])],
        [right],
    )
    # the oldest runtime's file version; onnx writes its newest by default
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return OnnxRuntimeBackend(model.SerializeToString(), threads=threads, provider="cpu")
