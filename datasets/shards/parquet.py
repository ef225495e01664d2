"""Images in Parquet files: in structs with the field `bytes`, as Hugging Face keeps them, or a column of binary."""

import functools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from ...runtime.errors import InputError
from ...runtime.optional import optional
from .files import base_name

_GROUPS = 4
"""Row groups that a process keeps in memory: of Hugging Face's files each has 100 images."""


def is_parquet(url: str) -> bool:
    """Return whether a file is one, by its name."""
    return base_name(url).endswith(".parquet")


def images_in(path: str) -> Iterator[bytes]:
    """Yield the image of every row of a file of this machine, an empty one where a row has none; ValueError for others.

    A row group is read at a time.
    """
    _, begins = _layout(path)
    for group in range(len(begins) - 1):
        yield from (image.as_py() or b"" for image in _read(path, group))


def read_row(path: str, row: int) -> bytes:
    """Return the image of one row; the last few row groups are kept, as images of one are mostly asked for together."""
    _, begins = _layout(path)
    group = bisect_right(begins, row) - 1
    images = _kept(path, group) if group < len(begins) - 1 else ()
    return (images[row - begins[group]].as_py() or b"") if len(images) else b""


@functools.lru_cache(maxsize=4096)
def _layout(path: str) -> tuple[str, Sequence[int]]:
    """Return the column of images, and the first row of each row group and of what would follow them."""
    file = _open(path)
    found = [file.schema.column(i) for i in range(len(file.schema.names))]
    columns = [column.path for column in found]
    binary = [c.path for c in found if c.physical_type == "BYTE_ARRAY" and c.logical_type.type == "NONE"]
    column = next((name for name in binary if name.endswith(".bytes")), next(iter(binary), ""))
    if not column:
        expected = "a column of images with their bytes, such as image.bytes"
        raise InputError(base_name(path), expected, f"the columns {', '.join(columns)}")
    rows = (file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
    return column, [0, *accumulate(rows)]


@functools.lru_cache(maxsize=_GROUPS)
def _kept(path: str, group: int) -> Any:
    return _read(path, group)


def _read(path: str, group: int) -> Any:
    """Return the images of a row group, an Arrow array of binary."""
    column = _open(path).read_row_group(group, columns=[_layout(path)[0]]).column(0).combine_chunks()
    return column.field("bytes") if column.type.num_fields else column


def _open(path: str) -> Any:
    parquet = optional("pyarrow.parquet", extra="parquet", where=base_name(path))
    try:
        return parquet.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(base_name(path), "a Parquet file", f"one that can't be read: {error}") from error
