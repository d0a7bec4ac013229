"""Which engine runs a graph."""

from __future__ import annotations

import os
from pathlib import Path

from robopolicy.runtime.backends.onnx_file import read_signature
from robopolicy.runtime.backends.onnxruntime import OnnxRuntimeBackend, engine_options, engine_version
from robopolicy.runtime.backends.protocol import Backend, Loop

#: TensorRT without ONNX Runtime around it.
NATIVE = "tensorrt-native"


def load_backend(
    name: str,
    model: bytes,
    *,
    precision: str = "fp32",
    threads: int = 1,
    provider: str = "auto",
    loop: Loop | None = None,
    max_rows: int = 16,
    cache: Path | None = None,
) -> Backend:
    """One graph, ready to run.

    Args:
        name: of its file, for messages.
        model: its bytes.
        precision: what its arithmetic is in, one of ``manifest.PRECISIONS``.
        threads: of a CPU.
        provider: "auto" (CUDA where ONNX Runtime has it, else the CPU), "cpu", "cuda", "tensorrt" (ONNX
            Runtime's) or "tensorrt-native". The last two build an engine at the first start, which takes
            minutes, and keep it in ``cache``.
        loop: how the graph repeats itself; None when it does not.
        max_rows: largest first axis that an engine is built for.
        cache: None is the user's cache folder.
    Raises:
        ConfigError: an unknown or unavailable provider, no GPU, a cache that others may write to;
        BundleError: the engine refuses the model;
        MissingDependencyError: its package is not installed.
    """
    if provider == NATIVE:
        from robopolicy.runtime.backends.tensorrt import TensorRtBackend

        return TensorRtBackend(name, model, loop=loop, max_rows=max_rows, cache=cache or default_cache())
    options = None
    if provider == "tensorrt":
        from robopolicy.runtime.backends.gpu import describe_gpu
        from robopolicy.runtime.backends.tensorrt_engine import engine_key, private_folder

        # ONNX Runtime names engines after tensors, which every policy shares: each graph has its own folder.
        key = engine_key(model, describe_gpu(), f"onnxruntime {engine_version()} {precision}", max_rows)
        folder = cache or default_cache()
        for part in ("", "onnxruntime", key):
            folder = private_folder(folder / part)
        shapes = {key: tensor.shape for key, tensor in read_signature(name, model).inputs.items()}
        options = engine_options(folder, shapes, max_rows=max_rows, fp16=precision == "fp16")
    return OnnxRuntimeBackend(model, threads=threads, provider=provider, loop=loop, engine_options=options)


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/robopolicy/engines``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "robopolicy" / "engines"
