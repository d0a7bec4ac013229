"""What turns instructions into vectors that a policy conditions on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import NonFiniteValueError, ShapeError, SpecError

#: Name of the embedded instruction among a policy's inputs.
INSTRUCTION = "instruction"
#: In training alone: the same embedding before noise was added, for what must not mistake instructions.
CLEAN_INSTRUCTION = "instruction.clean"
#: Longer instructions are refused [characters]; some come over the network.
LONGEST = 1000
Float32 = NDArray[np.float32]


class TextEncoder(Protocol):
    """A frozen sentence encoder: the same text gives the same vector wherever it runs."""

    @property
    def name(self) -> str:
        """What finds it again: the name of a built-in encoder, or of the folder it was read from."""
        ...

    @property
    def dim(self) -> int:
        """Size of one embedding."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over ``files``."""
        ...

    @property
    def files(self) -> Mapping[str, bytes]:
        """All that it takes to make it again, by file name; what policies and bundles carry along."""
        ...

    def encode(self, texts: Sequence[str]) -> Float32:
        """(texts, dim) embeddings whose elements have a root mean square of 1; an empty text gives zeros."""
        ...


class InstructionInput:
    """The network input "instruction" from texts; each text is encoded once.

    Args:
        dim: ``PolicySpecs.instruction_dim``; 0 for a policy without language.
        encoder: None where there is none, which fails only when an instruction is asked for.
        kept: texts whose embeddings are remembered.
    Raises:
        SpecError: encoder and policy disagree on the size.
    """

    def __init__(self, dim: int, encoder: TextEncoder | None, *, kept: int = 1024) -> None:
        if dim and encoder is not None and encoder.dim != dim:
            raise SpecError(
                f"the policy takes instructions of {dim} numbers, text encoder {encoder.name!r} gives "
                f"{encoder.dim}"
            )
        self._dim, self._encoder, self._kept = dim, encoder, kept
        self._known: dict[str, Float32] = {}

    def rows(self, texts: Sequence[str], batch: int) -> Float32:
        """(batch, dim) of one text per row, or of one for all rows.

        Raises:
            SpecError: no instruction, one without words or of more than ``LONGEST`` characters, or no
            encoder; ShapeError: another number of texts; NonFiniteValueError: the encoder gave NaN or
            infinity.
        """
        if not texts or not all(text.strip() for text in texts):
            raise SpecError(
                "this policy follows instructions and got none; give one: --instruction TEXT on the command "
                "line, Context(instruction=...) in code"
            )
        if len(texts) not in (1, batch):
            raise ShapeError(f"{len(texts)} instructions for {batch} observations")
        if self._encoder is None:
            raise SpecError("this policy follows instructions, but it came without a text encoder")
        if (longest := max(map(len, texts))) > LONGEST:
            raise SpecError(f"an instruction has {longest} characters; {LONGEST} are the most")
        wanted = list(dict.fromkeys(texts))
        new = [text for text in wanted if text not in self._known]
        if new and len(self._known) + len(new) > self._kept:
            self._known.clear()
            new = wanted
        if new:
            self._known.update(zip(new, self._encoded(self._encoder, new)))
        return np.stack([self._known[text] for text in texts]).repeat(batch // len(texts), axis=0)

    @staticmethod
    def _encoded(encoder: TextEncoder, texts: Sequence[str]) -> Float32:
        found = encoder.encode(texts)
        if not np.isfinite(found).all():
            raise NonFiniteValueError(f"text encoder {encoder.name!r} gave non-finite values: {list(texts)}")
        if empty := [text for text, row in zip(texts, found) if not row.any()]:
            raise SpecError(f"text encoder {encoder.name!r} finds no words in the instructions {empty}")
        return found
