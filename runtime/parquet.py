"""Tables as Parquet files."""

from collections.abc import Callable, Iterator
from typing import IO, Any

from .optional import optional

Table = dict[str, Any]
"""Columns by name, NumPy arrays of one length, (n,) or (n, k)."""


def parquet_writer(where: str) -> Callable[[Iterator[Table], IO[bytes]], None]:
    """Return what writes tables of the same columns to one Parquet file; InputError about `where` without pyarrow."""
    pa = optional("pyarrow", extra="parquet", where=where)
    pq = optional("pyarrow.parquet", extra="parquet", where=where)

    def column(values: Any) -> Any:
        if values.ndim == 2:
            return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        return pa.array(values, pa.string()) if values.dtype == object else pa.array(values)

    def write(tables: Iterator[Table], file: IO[bytes]) -> None:
        writer = None
        for table in tables:
            arrow = pa.table({name: column(values) for name, values in table.items()})
            writer = writer or pq.ParquetWriter(file, arrow.schema, compression="zstd")
            writer.write_table(arrow)
        if writer:
            writer.close()

    return write
