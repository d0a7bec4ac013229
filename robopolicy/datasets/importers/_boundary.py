"""Where foreign bytes meet our code: whatever a parser raises on them becomes one typed error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from robopolicy.core.errors import ImportFormatError, RobopolicyError, UnknownNameError
from robopolicy.datasets.importers.mapping import Mapping, without_sources
from robopolicy.datasets.importers.source import ImportOptions

#: Frames of images or depth in one block: what an import holds in memory of one camera.
IMAGE_BLOCK = 64
#: Frames of states in one block.
STATE_BLOCK = 4096
#: The largest chunk that is decoded, 1 GiB; a damaged header may ask for any amount of memory.
MAX_CHUNK_BYTES = 1 << 30


@contextlib.contextmanager
def foreign(where: str, doing: str = "cannot be read") -> Iterator[None]:
    """Turn any exception of a third-party reader into ImportFormatError.

    Wrap only calls into that reader. The net is this wide because zarr, zipfile, the codecs and HDF5 raise
    nearly every built-in exception on damaged bytes (KeyError, TypeError, MemoryError, ...).
    """
    try:
        yield
    except RobopolicyError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip(": ")
        raise ImportFormatError(f"{where} {doing}: {reason}") from error


def choose_episodes(count: int, options: ImportOptions, where: str) -> list[int]:
    """Source indices to import, in the source's order; ImportFormatError when one does not exist."""
    wrong = sorted(i for i in options.episodes if not 0 <= i < count)
    if wrong:
        raise ImportFormatError(f"{where} has no episodes {wrong}; it has 0 to {count - 1}")
    return sorted(set(options.episodes)) if options.episodes else list(range(count))


def leave_out(mapping: Mapping, options: ImportOptions, known: Sequence[str]) -> Mapping:
    """The mapping without the sources the user does not want; UnknownNameError for one that is not there."""
    for name in options.without:
        if name not in known:
            raise UnknownNameError("source array", name, known)
    return without_sources(mapping, options.without)
