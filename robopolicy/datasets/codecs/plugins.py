"""The image codecs for zarr-python, so that it reads our stores wherever robopolicy is installed.

Found by zarr through the entry points ``zarr.codecs`` in pyproject.toml.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec as ZarrArraySpec
from zarr.core.buffer import Buffer, NDBuffer

from robopolicy.core.errors import SpecError
from robopolicy.core.serial import from_tree
from robopolicy.core.specs import ArraySpec
from robopolicy.datasets.codecs import jpeg, png


@dataclass(frozen=True)
class _FrameCodec(ArrayBytesCodec):
    """One frame of shape (1, height, width, channels) to the bytes of an image file.

    Raises:
        SpecError: chunks of another shape, of which all but the first frame would be lost, or a dtype that
        the codec cannot store.
    """

    module: ClassVar[Any]
    is_fixed_size = False
    config: Any = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        settings = data.get("configuration", {})
        return cls(config=from_tree(cls.module.Config, settings, cls.module.ZARR_NAME))

    def to_dict(self) -> dict[str, Any]:
        settings = {} if self.config is None else vars(self.config)
        return {"name": self.module.ZARR_NAME, "configuration": dict(settings)}

    def evolve_from_array_spec(self, array_spec: ZarrArraySpec) -> Self:
        return self if self.config is not None else replace(self, config=self.module.Config())

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ZarrArraySpec) -> int:
        raise NotImplementedError("the size of an encoded image depends on its content")

    def _check(self, chunk_spec: ZarrArraySpec) -> None:
        shape, dtype = chunk_spec.shape, chunk_spec.dtype.to_native_dtype()
        if len(shape) != 4 or shape[0] != 1:
            raise SpecError(
                f"{self.module.ZARR_NAME} takes chunks of (1, height, width, channels), got {shape}"
            )
        self.module.check(ArraySpec(shape[1:], dtype.name, kind="depth" if dtype == np.uint16 else "image"))

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ZarrArraySpec) -> NDBuffer:
        self._check(chunk_spec)
        out = np.empty(chunk_spec.shape, dtype=chunk_spec.dtype.to_native_dtype())
        self.module.decode(chunk_data.to_bytes(), out[0])
        return chunk_spec.prototype.nd_buffer.from_numpy_array(out)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ZarrArraySpec) -> Buffer:
        self._check(chunk_spec)
        data = self.module.encode(self.config, np.ascontiguousarray(chunk_data.as_numpy_array()[0]))
        return chunk_spec.prototype.buffer.from_bytes(data)


class JpegCodec(_FrameCodec):
    """``robopolicy.jpeg``"""

    module: ClassVar[Any] = jpeg


class PngCodec(_FrameCodec):
    """``robopolicy.png``"""

    module: ClassVar[Any] = png
