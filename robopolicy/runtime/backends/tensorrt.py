"""TensorRT itself, with a CUDA graph over all denoising steps once a row count repeats.

Written against TensorRT 10 and 11 (cuda-bindings 12 and 13); docs/export.md says what of it has run where.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import BundleError, ConfigError, MissingDependencyError, ShapeError
from robopolicy.runtime.backends.gpu import checked, cuda_runtime, describe_gpu
from robopolicy.runtime.backends.onnx_file import TensorSignature, read_signature
from robopolicy.runtime.backends.protocol import Loop
from robopolicy.runtime.backends.tensorrt_engine import EngineCache, build_engine, engine_key

if TYPE_CHECKING:
    import tensorrt as trt

#: TensorRT asks for this alignment of every address it is given [bytes].
ALIGNMENT = 256


class TensorRtBackend:
    """One engine with buffers of its own for up to ``max_rows`` rows.

    Args:
        name: of the graph's file, for messages.
        model: its bytes.
        loop: how the graph repeats itself; None when it does not.
        max_rows: largest first axis.
        cache: folder of engines.
    Raises:
        MissingDependencyError: tensorrt or cuda-bindings is not installed.
        ConfigError: no GPU; BundleError: the graph cannot be built.
    """

    provider = "TensorRT"

    def __init__(self, name: str, model: bytes, *, loop: Loop | None, max_rows: int, cache: Path) -> None:
        module = _tensorrt()
        self._cuda = cuda_runtime()
        gpu = describe_gpu()
        signature = read_signature(name, model)
        plan = EngineCache(cache).get(
            engine_key(model, gpu, module.__version__, max_rows),
            lambda: build_engine(module, signature, model, max_rows),
        )
        self._runtime: trt.Runtime = module.Runtime(module.Logger(module.Logger.WARNING))  # outlives it
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BundleError(f"TensorRT refuses the engine of {name}")
        self._engine: trt.ICudaEngine = engine
        self._context: trt.IExecutionContext = engine.create_execution_context()
        self._inputs, self._outputs = signature.inputs, signature.outputs
        self._loop, self._max_rows = loop, max_rows
        self._stream = checked(self._cuda.cudaStreamCreate())
        self._buffers: dict[str, int] = {
            name: self._allocate(_bytes(tensor, max_rows))
            for name, tensor in {**self._inputs, **self._outputs}.items()
        }
        self._rows = [self._upload(row) for row in loop.rows] if loop is not None else []
        self._shape_rows, self._graph = 0, None

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        rows = self._send(feeds)
        self._launch(rows)
        return {name: self._receive(name, self._buffers[name], rows) for name in self._outputs}

    def iterate(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        assert self._loop is not None, "made without a loop"
        rows = self._send(feeds)
        self._launch(rows)
        # Input and output take turns: after an even number of iterations the last is where it began.
        last = self._loop.output if len(self._rows) % 2 else self._loop.carried
        return self._receive(self._loop.output, self._buffers[last], rows)

    def _send(self, feeds: Mapping[str, NDArray[Any]]) -> int:
        """Copy the inputs to the device; returns the number of rows."""
        rows = {
            len(feeds[name]) for name, tensor in self._inputs.items() if name in feeds if None in tensor.shape
        }
        if len(rows) != 1 or not 1 <= max(rows) <= self._max_rows:
            raise ShapeError(
                f"the engine takes 1..{self._max_rows} rows, the same in every input, got {rows}"
            )
        for name, value in feeds.items():
            tensor = self._inputs[name]
            expected = tuple(max(rows) if size is None else size for size in tensor.shape)
            if value.shape != expected or value.dtype != tensor.dtype:
                raise ShapeError(
                    f"{name!r} must be {tensor.dtype} {expected}, got {value.dtype} {value.shape}"
                )
            self._copy_in(self._buffers[name], np.ascontiguousarray(value))
        return max(rows)

    def _launch(self, rows: int) -> None:
        """Enqueue the work; from the second call with one row count on as a single CUDA graph."""
        if rows != self._shape_rows:
            self._drop_graph()
            for name, tensor in self._inputs.items():
                shape = tuple(rows if size is None else size for size in tensor.shape)
                if not self._context.set_input_shape(name, shape):
                    raise ShapeError(f"TensorRT refuses {name!r} of shape {shape}")
            self._shape_rows = rows
            self._enqueue()  # not captured: the first run of a shape also allocates
            return
        if self._graph is None:
            mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            checked(self._cuda.cudaStreamBeginCapture(self._stream, mode))
            self._enqueue()
            captured = checked(self._cuda.cudaStreamEndCapture(self._stream))
            self._graph = checked(self._cuda.cudaGraphInstantiate(captured, 0))
            checked(self._cuda.cudaGraphDestroy(captured))
        checked(self._cuda.cudaGraphLaunch(self._graph, self._stream))

    def _enqueue(self) -> None:
        for name, address in self._buffers.items():
            self._context.set_tensor_address(name, address)
        if self._loop is None:
            self._execute()
            return
        source, target = self._buffers[self._loop.carried], self._buffers[self._loop.output]
        for row in self._rows:
            self._context.set_tensor_address(self._loop.varying, row)
            self._context.set_tensor_address(self._loop.carried, source)
            self._context.set_tensor_address(self._loop.output, target)
            self._execute()
            source, target = target, source

    def _execute(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise ConfigError("TensorRT could not enqueue the graph; its log says why")

    def _receive(self, name: str, address: int, rows: int) -> NDArray[Any]:
        tensor = self._outputs[name]
        result = np.empty([rows if size is None else size for size in tensor.shape], tensor.dtype)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(self._cuda.cudaMemcpyAsync(result.ctypes.data, address, result.nbytes, kind, self._stream))
        checked(self._cuda.cudaStreamSynchronize(self._stream))
        return result

    def _copy_in(self, address: int, value: NDArray[Any]) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(self._cuda.cudaMemcpyAsync(address, value.ctypes.data, value.nbytes, kind, self._stream))

    def _upload(self, value: NDArray[Any]) -> int:
        address = self._allocate(value.nbytes)
        self._copy_in(address, np.ascontiguousarray(value))
        checked(self._cuda.cudaStreamSynchronize(self._stream))
        return address

    def _allocate(self, size: int) -> int:
        """Device memory for as long as this process lives; cudaMalloc aligns to ``ALIGNMENT``."""
        address = int(checked(self._cuda.cudaMalloc(size)))
        assert address % ALIGNMENT == 0
        return address

    def _drop_graph(self) -> None:
        if self._graph is not None:
            checked(self._cuda.cudaGraphExecDestroy(self._graph))
            self._graph = None


def _bytes(tensor: TensorSignature, max_rows: int) -> int:
    sizes = [max_rows if size is None else size for size in tensor.shape]
    return max(1, int(np.prod(sizes)) * np.dtype(tensor.dtype).itemsize)


def _tensorrt() -> Any:
    try:
        module = importlib.import_module("tensorrt")
    except ImportError as error:
        raise MissingDependencyError(
            f"tensorrt cannot be imported ({error}): pip install 'robopolicy[tensorrt]'"
        ) from error
    logging.getLogger(__name__).debug("TensorRT %s", module.__version__)
    return module
