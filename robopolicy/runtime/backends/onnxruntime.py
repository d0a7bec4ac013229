"""ONNX Runtime: CPU, CUDA and TensorRT where their providers are installed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import BundleError, ConfigError, MissingDependencyError
from robopolicy.runtime.backends.protocol import Loop

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
#: Row counts whose buffers are kept; a robot asks for one candidate or for K.
KEPT_LOOPS = 4


class OnnxRuntimeBackend:
    """One graph in one session.

    Args:
        model: the bytes of an ONNX file with its weights inside.
        threads: for one operator; one is usually best on a small machine shared with a control loop.
        provider: "cpu", "cuda", "tensorrt", or "auto" for CUDA where there is one.
        loop: how the graph repeats itself; None when it does not.
        engine_options: of the TensorRT provider, see ``engine_options``.
    Raises:
        ConfigError: unknown or unavailable provider, threads below 1.
        BundleError: the engine refuses the model.
    """

    def __init__(
        self,
        model: bytes,
        *,
        threads: int = 1,
        provider: str = "auto",
        loop: Loop | None = None,
        engine_options: Mapping[str, Any] | None = None,
    ) -> None:
        if threads < 1:
            raise ConfigError(f"threads must be >= 1, got {threads}")
        self._engine = engine = _engine()
        options = engine.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = engine.ExecutionMode.ORT_SEQUENTIAL
        # Spinning threads would take the core that the control loop needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        providers = choose_providers(provider, engine.get_available_providers())
        given = [dict(engine_options or {}) if name == PROVIDERS["tensorrt"] else {} for name in providers]
        try:
            self._session = engine.InferenceSession(
                model, sess_options=options, providers=providers, provider_options=given
            )
        except Exception as error:  # ONNX Runtime's own exceptions share no narrower base
            raise BundleError(f"ONNX Runtime refuses the model: {error}") from error
        if provider != "auto" and self.provider != providers[0]:
            raise ConfigError(f"provider {provider!r} cannot be used here; the engine chose {self.provider}")
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._device = "cpu" if self.provider == PROVIDERS["cpu"] else "cuda"
        self._loop = loop
        self._loops: dict[tuple[Any, ...], _BoundLoop] = {}

    @property
    def provider(self) -> str:
        return str(self._session.get_providers()[0])

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds))))

    def iterate(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        assert self._loop is not None, "made without a loop"
        key = tuple((name, value.shape) for name, value in feeds.items())
        bound = self._loops.get(key)
        if bound is None:
            if len(self._loops) == KEPT_LOOPS:
                del self._loops[next(iter(self._loops))]
            bound = _BoundLoop(self._session, self._engine.OrtValue, self._device, feeds, self._loop)
            self._loops[key] = bound
        return bound(feeds)


class _BoundLoop:
    """Buffers and bindings for one row count, made once: an iteration is then one call."""

    def __init__(
        self, session: Any, ort_value: Any, device: str, feeds: Mapping[str, NDArray[Any]], loop: Loop
    ) -> None:
        self._session, self._carried = session, loop.carried
        first = np.ascontiguousarray(feeds[loop.carried])
        # Copies throughout: on a CPU an OrtValue is the array it was made from.
        self._held = {name: np.array(value, order="C") for name, value in feeds.items()}
        self._values = {name: ort_value.ortvalue_from_numpy(v, device) for name, v in self._held.items()}
        self._spare = np.empty_like(first), np.empty_like(first)
        ends = [ort_value.ortvalue_from_numpy(array, device) for array in self._spare]
        self._rows = [np.array(row, dtype=np.float32) for row in loop.rows]
        source, self._bindings = self._values[loop.carried], []
        for index, row in enumerate(self._rows):
            binding, target = session.io_binding(), ends[index % 2]
            for name, value in self._values.items():
                binding.bind_ortvalue_input(name, source if name == loop.carried else value)
            binding.bind_ortvalue_input(loop.varying, ort_value.ortvalue_from_numpy(row, device))
            binding.bind_ortvalue_output(loop.output, target)
            self._bindings.append(binding)
            source = target
        self._last = source

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        for name, value in feeds.items():
            self._values[name].update_inplace(np.ascontiguousarray(value))
        run = self._session.run_with_iobinding
        for binding in self._bindings:
            run(binding)
        return np.array(self._last.numpy())  # the buffer is written again by the next call


def choose_providers(provider: str, available: Sequence[str]) -> list[str]:
    """Engine names, best first; ConfigError lists what there is when the wish cannot be met.

    TensorRT is never a default: building its engines takes minutes.
    """
    cpu, cuda, tensorrt = PROVIDERS["cpu"], PROVIDERS["cuda"], PROVIDERS["tensorrt"]
    if provider == "auto":
        return [cuda, cpu] if cuda in available else [cpu]
    if provider not in PROVIDERS or PROVIDERS[provider] not in available:
        here = sorted(name for name, engine_name in PROVIDERS.items() if engine_name in available)
        raise ConfigError(f"provider {provider!r} is not available; there are {['auto', *here]}")
    wanted = {"cpu": [cpu], "cuda": [cuda, cpu], "tensorrt": [tensorrt, cuda, cpu]}[provider]
    return [name for name in wanted if name in available]


def engine_options(
    folder: Path, shapes: Mapping[str, tuple[int | None, ...]], *, max_rows: int, fp16: bool
) -> dict[str, Any]:
    """Options of the TensorRT provider: engines are built once, for any number of rows up to ``max_rows``.

    Args:
        folder: of the cache, one for each graph, GPU, driver and release: engines in it are named after
            tensors, not weights.
        shapes: of the graph's inputs; None is the row axis.
        fp16: allow half precision, for graphs that hold it.
    Source: onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html.
    """

    def profile(rows: int) -> str:
        given = {n: [rows if size is None else size for size in s] for n, s in shapes.items() if None in s}
        return ",".join(f"{name}:{'x'.join(map(str, sizes))}" for name, sizes in given.items())

    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
        "trt_fp16_enable": fp16,
        "trt_profile_min_shapes": profile(1),
        "trt_profile_opt_shapes": profile(max_rows),
        "trt_profile_max_shapes": profile(max_rows),
    }


def engine_version() -> str:
    """Release of ONNX Runtime."""
    return str(_engine().__version__)


def _engine() -> Any:
    try:
        engine = importlib.import_module("onnxruntime")  # here, so that importing the runtime stays fast
    except ImportError as error:
        raise MissingDependencyError(
            "onnxruntime is not installed; the base package brings it, the extra 'gpu' its CUDA build"
        ) from error
    engine.set_default_logger_severity(3)  # errors only: device probing warns without a display
    return engine
