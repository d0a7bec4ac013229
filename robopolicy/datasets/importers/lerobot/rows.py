"""Rows of LeRobot's parquet files, read forward in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError, NonFiniteValueError
from robopolicy.datasets.importers._boundary import foreign
from robopolicy.datasets.importers.lerobot.layout import Feature


class Rows:
    """Some columns of one file. Reading goes on where it stopped; going back starts the row group again.

    A file may be one row group of many episodes, so that reading each episode by itself would decode the
    file once per episode.
    """

    def __init__(self, path: Path, columns: Sequence[str], block: int) -> None:
        self.path, self._columns, self._block = path, list(columns), block
        with foreign(str(path)):
            self._file = pq.ParquetFile(path, buffer_size=1 << 20)  # pages are streamed, not whole columns
            groups = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(groups)]).astype(np.int64)
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._pending: pa.RecordBatch | None = None
        self._position = int(self._starts[-1])

    def close(self) -> None:
        self._batches, self._pending = iter(()), None
        self._file.close()

    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Rows [start, stop) in pieces of at most ``block``; ImportFormatError when the file ends before."""
        group = int(np.searchsorted(self._starts, start, side="right")) - 1
        if start < self._position or self._position < self._starts[group]:
            groups = list(range(group, len(self._starts) - 1))
            with foreign(str(self.path)):
                self._batches = self._file.iter_batches(self._block, groups, columns=self._columns)
            self._position, self._pending = int(self._starts[group]), None
        while self._position < stop:
            batch = self._pending
            if batch is None:
                with foreign(str(self.path)):
                    batch = next(self._batches, None)
            if batch is None:
                raise ImportFormatError(f"{self.path} ends at row {self._position}, before row {stop}")
            skipped = min(max(start - self._position, 0), len(batch))
            taken = min(len(batch) - skipped, max(stop - self._position - skipped, 0))
            rest = batch.slice(skipped + taken)
            self._pending = rest if len(rest) else None
            self._position += skipped + taken
            if taken:
                yield batch.slice(skipped, taken)


def check_file(path: Path, rows: int, features: Mapping[str, Feature], exact: bool) -> None:
    """Hold a file's footer against what the meta folder says.

    Raises:
        ImportFormatError: no footer, a column is missing or of another type, or there are too few rows.
    """
    with foreign(str(path)), pq.ParquetFile(path) as file:
        schema, found = file.schema_arrow, file.metadata.num_rows
    if found < rows or (exact and found != rows):
        raise ImportFormatError(f"{path} has {found} rows, meta/episodes says {rows}")
    for key, feature in features.items():
        if key not in schema.names:
            raise ImportFormatError(f"{path} has no column {key!r}; it has {schema.names}")
        kind = schema.field(key).type
        if feature.dtype == "image":
            if not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
                raise ImportFormatError(f"{path}, {key}: images are a struct with 'bytes', not {kind}")
        elif feature.numpy is None or _innermost(kind) != pa.from_numpy_dtype(feature.numpy):
            raise ImportFormatError(f"{path}, {key}: holds {kind}, meta/info.json says {feature.dtype}")


def _innermost(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return _innermost(kind.value_type) if _is_list(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return isinstance(kind, (pa.ListType, pa.LargeListType, pa.FixedSizeListType))


def column(batches: Sequence[pa.RecordBatch], key: str, feature: Feature, where: str) -> NDArray[Any]:
    """(count, *shape) numbers of one column.

    Raises:
        ImportFormatError: a row is empty or of another length; NonFiniteValueError: NaN, with its frame.
    """
    pieces = [_numbers(batch.column(key), feature, f"{where}, {key}") for batch in batches]
    values = np.concatenate(pieces)
    if values.dtype.kind == "f":
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            frame = int(np.argmin(finite))
            raise NonFiniteValueError(f"{where}, {key}, frame {frame}: non-finite value {values[frame]}")
    return values


def _numbers(array: Any, feature: Feature, where: str) -> NDArray[Any]:
    count = len(array)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    depth = 0
    while _is_list(array.type):
        lengths = set(pc.list_value_length(array).to_pylist())
        if depth >= len(feature.shape) or lengths - {feature.shape[depth]}:
            raise ImportFormatError(
                f"{where}: rows of lengths {lengths}, meta/info.json says {feature.shape}"
            )
        array, depth = array.flatten(), depth + 1
    if array.null_count or len(array) != count * int(np.prod(feature.shape)):
        raise ImportFormatError(f"{where}: empty rows, or other ones than {feature.shape} of meta/info.json")
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values.reshape(count, *feature.shape)
