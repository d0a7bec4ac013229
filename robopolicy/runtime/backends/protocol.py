"""What runs one graph: one interface for ONNX Runtime's providers and for TensorRT itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Loop:
    """How a graph repeats itself: its output becomes the carried input of the next iteration.

    Args:
        carried, varying: inputs: what the previous iteration gave; and the iteration's own parameters.
        output: what becomes ``carried``, of the same shape.
        rows: (iterations, p) float32; row i feeds ``varying`` in iteration i.
    """

    carried: str
    varying: str
    output: str
    rows: NDArray[np.float32]


class Backend(Protocol):
    """One loaded graph. Buffers are its own: one call at a time, and results are the caller's to keep."""

    @property
    def provider(self) -> str:
        """What executes it, as the engine names it."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Named inputs to named outputs; the first axis of each may be any size."""
        ...

    def iterate(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The last output of the ``Loop`` the backend was made with; feeds are all inputs but ``varying``."""
        ...
