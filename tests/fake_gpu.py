"""Stand-ins for ``cuda.bindings.runtime`` and ``tensorrt``: host memory, and ONNX Runtime as the engine.

They know the few calls that the backend makes (benchmarks/tensorrt_types.py holds their names and types
against the real packages) and, like a GPU, work only when told to: what is enqueued while a stream is
captured runs when the graph is launched, with the addresses of the capture.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime


class Status(int):
    name = "cudaErrorNoDevice"


class FakeCuda:
    """Memory is numpy's; one stream."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self, devices: int = 1) -> None:
        self.devices, self.memory, self.launches = devices, [], 0
        self.captured: list[Any] | None = None

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:  # noqa: N802
        return (Status(0), self.devices) if self.devices else (Status(100), None)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        return Status(0), SimpleNamespace(name=b"Fake GPU\0", major=9, minor=0)

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:  # noqa: N802
        return Status(0), 12040

    def cudaStreamCreate(self) -> tuple[Any, ...]:  # noqa: N802
        return Status(0), 7

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        block = np.full(size + 256, 0xFF, np.uint8)  # NaN, as fresh memory may be
        self.memory.append(block)
        return Status(0), -(-block.ctypes.data // 256) * 256

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        ctypes.memmove(to, source, size)
        return (Status(0),)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        return (Status(0),)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:  # noqa: N802
        self.captured = []
        return (Status(0),)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        captured, self.captured = self.captured, None
        return Status(0), captured

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return Status(0), list(graph)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:  # noqa: N802
        graph.clear()
        return (Status(0),)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[Any, ...]:  # noqa: N802
        graph.clear()
        return (Status(0),)

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self.launches += 1
        for work in graph:
            work()
        return (Status(0),)


class FakeContext:
    """Runs the ONNX bytes, which are all there is in a fake engine."""

    def __init__(self, plan: bytes, cuda: FakeCuda) -> None:
        self.session = onnxruntime.InferenceSession(plan)
        self.cuda, self.shapes, self.addresses = cuda, {}, {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory % 256 == 0
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        addresses, shapes = dict(self.addresses), dict(self.shapes)

        def work() -> None:
            feeds = {name: _view(addresses[name], shape) for name, shape in shapes.items()}
            for output, value in zip(self.session.get_outputs(), self.session.run(None, feeds)):
                _view(addresses[output.name], value.shape)[...] = value

        if self.cuda.captured is None:
            work()
        else:
            self.cuda.captured.append(work)
        return True


def _view(address: int, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


class FakeTensorRt:
    """``tensorrt``, as far as the backend knows it; counts what it builds."""

    __version__ = "11.0"
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    MemoryPoolType = SimpleNamespace(WORKSPACE=0)
    BuilderFlag = SimpleNamespace(TF32=1)
    Dims = tuple

    def __init__(self, cuda: FakeCuda, *, parses: bool = True, builds: bool = True) -> None:
        self.cuda, self.parses, self.builds, self.built = cuda, parses, builds, 0
        self.profiles: dict[str, Any] = {}
        self.model = b""

    class Logger:
        WARNING = 2

        def __init__(self, severity: int) -> None: ...

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        profile = SimpleNamespace(set_shape=lambda name, *shapes: self.profiles.update({name: shapes}))
        config = SimpleNamespace(
            set_memory_pool_limit=lambda pool, size: None,
            clear_flag=lambda flag: None,
            add_optimization_profile=lambda profile: 0,
        )
        return SimpleNamespace(
            create_network=lambda flags: None,
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: profile,
            build_serialized_network=self._build,
        )

    def _build(self, network: Any, config: Any) -> bytes | None:
        self.built += 1
        return self.model if self.builds else None

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        def parse(model: bytes) -> bool:
            self.model = model
            return self.parses

        return SimpleNamespace(parse=parse, num_errors=1, get_error=lambda i: "no such operator")

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        engine = lambda plan: SimpleNamespace(create_execution_context=lambda: FakeContext(plan, self.cuda))  # noqa: E731
        return SimpleNamespace(deserialize_cuda_engine=engine)
