"""One file = one way to store the frames of a camera. Each is a Zarr v3 codec chain and a fast path for it.

Each module offers a frozen ``Config``, ``ZARR_NAME`` (the codec that identifies its chain),
``chain(config, spec)`` (Zarr v3 codec metadata), ``encode(config, frame)``, ``decode(data, out)`` and
``check(spec)``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import MissingDependencyError, SpecError, StoreError, UnknownNameError
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import ArraySpec, Specs

Decode = Callable[[memoryview, NDArray[Any]], None]


def names() -> list[str]:
    """Codecs there are: the file names in this package, the zarr-python plugins aside."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "plugins")


def load(name: str) -> Any:
    """The codec module NAME; UnknownNameError lists the known ones."""
    if name not in names():
        raise UnknownNameError("codec", name, names())
    return importlib.import_module(f"{__name__}.{name}")


def opencv() -> Any:
    """OpenCV, asked for only where a picture is coded; MissingDependencyError without it."""
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "JPEG and PNG frames need OpenCV: pip install 'robopolicy[opencv]'"
        ) from error
    return cv2


class FrameCodec:
    """One codec with its settings, for one camera.

    Every encoded frame ends in its CRC-32C (four bytes, little-endian), as Zarr's ``crc32c`` codec puts it.

    Raises:
        UnknownNameError: no such codec; SpecError: unknown settings, or a camera that it cannot store.
    """

    def __init__(self, name: str, spec: ArraySpec, **settings: Any) -> None:
        self.name, self.spec = name, spec
        self._module = load(name)
        self.config = from_tree(self._module.Config, settings, f"codec {name}")
        self._module.check(spec)

    @property
    def tree(self) -> dict[str, Any]:
        """What the store's description says of this codec."""
        return {"name": self.name, **to_tree(self.config)}

    @property
    def chain(self) -> list[dict[str, Any]]:
        """Zarr v3 codecs of one frame."""
        return [*self._module.chain(self.config, self.spec), {"name": "crc32c"}]

    def encode(self, frame: NDArray[Any]) -> bytes:
        data = bytes(self._module.encode(self.config, np.ascontiguousarray(frame)))
        return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def choose_codecs(
    specs: Specs, image_codec: str | Mapping[str, str], settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What a store says of its cameras' codecs; ``EpisodeStore.create`` explains the arguments."""
    cameras = [key for key, spec in specs.observation.items() if spec.kind in ("image", "depth")]
    unknown = sorted(set(image_codec) - set(cameras)) if isinstance(image_codec, Mapping) else []
    if unknown:
        raise SpecError(f"codecs for {unknown}, which are no cameras; there are {cameras}")
    chosen = {}
    for key, spec in specs.observation.items():
        if spec.kind not in ("image", "depth"):
            continue
        default = "png" if spec.kind == "depth" else "lossless"
        name = image_codec.get(key, default) if isinstance(image_codec, Mapping) else image_codec
        if spec.kind == "depth" and isinstance(image_codec, str):
            name = default
        chosen[key] = FrameCodec(
            name, spec, **(settings if name != "png" or name == image_codec else {})
        ).tree
    return chosen


def decoder(chain: list[dict[str, Any]], where: str) -> Decode:
    """The fast path for a chain of codecs found in a store.

    Returns:
        (data, out): decodes one frame, its CRC already taken off by ``checked``, into ``out``.
    Raises:
        StoreError: a chain that no codec of this package writes.
    """
    known = {load(name).ZARR_NAME: load(name).decode for name in names()}
    found = [codec["name"] for codec in chain]
    decode = next((known[name] for name in found if name in known), None)
    if decode is None or found[-1] != "crc32c":
        raise StoreError(f"{where}: unknown codecs {found}; known: {sorted(known)}, then crc32c")
    return decode  # type: ignore[no-any-return]


def checked(data: bytes, where: str) -> memoryview:
    """``data`` without its CRC-32C; StoreError when it does not match."""
    if len(data) < 4:
        raise StoreError(f"{where}: {len(data)} bytes are no chunk; it is cut or missing")
    payload = np.frombuffer(data, np.uint8)[:-4]
    if google_crc32c.value(payload) != int.from_bytes(data[-4:], "little"):
        raise StoreError(f"{where}: checksum does not match; the data are damaged")
    return payload.data
