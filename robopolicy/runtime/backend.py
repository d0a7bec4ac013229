"""What runs one graph: ONNX Runtime today, TensorRT behind the same call later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray


class Backend(Protocol):
    """One loaded graph."""

    @property
    def provider(self) -> str:
        """What executes it, as the engine names it."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Named inputs to named outputs; the first axis of each may be any size."""
        ...
