"""ONNX Runtime: CPU, and CUDA where its provider is installed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from robopolicy.core.errors import BundleError, ConfigError, MissingDependencyError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeBackend:
    """One graph in one session.

    Args:
        model: the bytes of an ONNX file with its weights inside.
        threads: for one operator; one is usually best on a small machine shared with a control loop.
        provider: "cpu", "cuda", or "auto" for CUDA where there is one.
    Raises:
        ConfigError: unknown or unavailable provider, threads below 1.
        BundleError: the engine refuses the model.
    """

    def __init__(self, model: bytes, *, threads: int = 1, provider: str = "auto") -> None:
        if threads < 1:
            raise ConfigError(f"threads must be >= 1, got {threads}")
        engine = _engine()
        options = engine.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = engine.ExecutionMode.ORT_SEQUENTIAL
        # Spinning threads would take the core that the control loop needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        providers = choose_providers(provider, engine.get_available_providers())
        try:
            self._session = engine.InferenceSession(model, sess_options=options, providers=providers)
        except Exception as error:  # ONNX Runtime's own exceptions share no narrower base
            raise BundleError(f"ONNX Runtime refuses the model: {error}") from error
        if provider != "auto" and self.provider != providers[0]:
            raise ConfigError(f"provider {provider!r} cannot be used here; the engine chose {self.provider}")
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def provider(self) -> str:
        return str(self._session.get_providers()[0])

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds))))


def choose_providers(provider: str, available: list[str]) -> list[str]:
    """Engine names, best first; ConfigError lists what there is when the wish cannot be met."""
    cpu, cuda = PROVIDERS["cpu"], PROVIDERS["cuda"]
    if provider == "auto":
        return [cuda, cpu] if cuda in available else [cpu]
    if provider not in PROVIDERS or PROVIDERS[provider] not in available:
        here = sorted(name for name, engine_name in PROVIDERS.items() if engine_name in available)
        raise ConfigError(f"provider {provider!r} is not available; there are {['auto', *here]}")
    return [cpu] if provider == "cpu" else [cuda, cpu]


def _engine() -> Any:
    try:
        engine = importlib.import_module("onnxruntime")  # here, so that importing the runtime stays fast
    except ImportError as error:
        raise MissingDependencyError(
            "onnxruntime is not installed; the base package brings it, the extra 'gpu' its CUDA build"
        ) from error
    engine.set_default_logger_severity(3)  # errors only: device probing warns without a display
    return engine
