"""Building TensorRT engines, and keeping them: one for each graph, GPU, driver and TensorRT version."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robopolicy.core.errors import BundleError, ConfigError
from robopolicy.runtime.backends.gpu import Gpu
from robopolicy.runtime.backends.onnx_file import GraphSignature

if TYPE_CHECKING:
    import tensorrt as trt

_LOGGER = logging.getLogger(__name__)
_HASH_BYTES = 32  # SHA-256, in front of the engine
WORKSPACE_BYTES = 1 << 30

Shape = tuple[int, ...]


def profile_shapes(signature: GraphSignature, max_rows: int) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Smallest, best and largest shape of each input that has a row axis.

    Best is the largest: what must be fast is K candidates; one is never slower than K.

    Raises:
        ConfigError: max_rows below 1; BundleError: another axis than the first is dynamic.
    """
    if max_rows < 1:
        raise ConfigError(f"max_rows must be >= 1, got {max_rows}")
    shapes = {}
    for name, tensor in signature.inputs.items():
        if None in tensor.shape[1:]:
            raise BundleError(f"{signature.file}: {name!r} {tensor.shape} is dynamic beyond its first axis")
        if tensor.shape and tensor.shape[0] is None:
            rest = tuple(size for size in tensor.shape[1:] if size is not None)
            shapes[name] = ((1, *rest), (max_rows, *rest), (max_rows, *rest))
    return shapes


def engine_key(model: bytes, gpu: Gpu, builder: str, max_rows: int) -> str:
    """SHA-256 (hex) over all that an engine depends on; another driver gets another engine.

    Args:
        builder: what builds it, and its version.
    """
    parts = (
        hashlib.sha256(model).hexdigest(),
        gpu.name,
        gpu.compute_capability,
        gpu.driver,
        builder,
        str(max_rows),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def private_folder(folder: Path) -> Path:
    """A folder that only its owner may write to, made where missing: an engine is trusted like a program.

    Raises:
        ConfigError: it belongs to someone else, or others may write to it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ConfigError(
            f"engine cache {folder} must belong to user {os.getuid()} alone, but belongs to "
            f"{status.st_uid} with mode {status.st_mode & 0o777:o}"
        )
    return folder


class EngineCache:
    """Engines in a ``private_folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = private_folder(folder)

    def get(self, key: str, build: Callable[[], bytes]) -> bytes:
        """The stored engine, or a new one; a damaged one is built again."""
        path = self.folder / f"{key}.engine"
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if hashlib.sha256(data[_HASH_BYTES:]).digest() == data[:_HASH_BYTES]:
                return data[_HASH_BYTES:]
            _LOGGER.warning("the engine %s is damaged; building it again", path)
        engine = build()
        handle, draft = tempfile.mkstemp(prefix=".draft-", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(engine).digest() + engine)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
        return engine


def build_engine(module: Any, signature: GraphSignature, model: bytes, max_rows: int) -> bytes:
    """A serialized engine for 1..max_rows rows, in the types that the graph itself says.

    Args:
        module: the package ``tensorrt``.
    Raises:
        BundleError: TensorRT cannot read the graph or build it; says why.
    """
    shapes = profile_shapes(signature, max_rows)
    _LOGGER.info("building a TensorRT engine for %s; this takes minutes, once", signature.file)
    logger: trt.Logger = module.Logger(module.Logger.WARNING)
    builder: trt.Builder = module.Builder(logger)
    # Strongly typed: half precision is where the exported graph has it, and nowhere else. TensorRT 11 knows
    # no other way; its flags FP16 and INT8 are gone.
    typed = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network: trt.INetworkDefinition = builder.create_network(typed)
    parser: trt.OnnxParser = module.OnnxParser(network, logger)
    if not parser.parse(model):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BundleError(f"TensorRT cannot read {signature.file}: {reasons}")
    config: trt.IBuilderConfig = builder.create_builder_config()
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(module.BuilderFlag.TF32)  # 10 bits of mantissa would not pass for float32
    profile: trt.IOptimizationProfile = builder.create_optimization_profile()
    for name, (smallest, best, largest) in shapes.items():
        profile.set_shape(name, *(module.Dims(shape) for shape in (smallest, best, largest)))
    config.add_optimization_profile(profile)
    plan: Any = builder.build_serialized_network(network, config)  # None after an error
    if plan is None:
        raise BundleError(f"TensorRT cannot build {signature.file}; its log says why")
    return bytes(plan)
