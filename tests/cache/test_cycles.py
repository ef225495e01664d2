"""Reading a store's cycles while stage 1 is at work on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distillcache.cache.store import Store
from distillcache.datasets.shards.files import expand
from distillcache.models.teachers import Teacher
from distillcache.runtime.errors import InputError

from ..conftest import cached


def test_a_cycle_that_stage_1_had_not_come_to_is_read_again(shards: str, teacher: Teacher, tmp_path: Path) -> None:
    """What is kept of a block was read when the block was not whole."""
    whole = cached(tmp_path / "whole.zarr", expand(shards), teacher, views=12)
    cached(tmp_path / "c.zarr", expand(shards), teacher, views=6).extend(12)
    reader = Store(tmp_path / "c.zarr")
    reader.cycle(1)
    with pytest.raises(InputError, match=r"expected labels for view 6 of shard train-0\.tar, found none"):
        reader.cycle(2)
    cached(tmp_path / "c.zarr", expand(shards), teacher, views=12)
    np.testing.assert_array_equal(reader.cycle(3).label, whole.cycle(3).label)


def test_a_unit_that_is_written_while_its_cycle_is_read_is_whole_or_not_there(
    store: Store, shards: str, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is written between the reading of the first array and of the second."""
    cached(tmp_path / "c.zarr", expand(shards), teacher, views=0).extend(6)
    reader, read = Store(tmp_path / "c.zarr"), Store._read

    def read_and_fill(self: Store, name: str, index: Any = slice(None)) -> Any:
        found = read(self, name, index)
        if self is reader and name in ("check", "label"):
            monkeypatch.setattr(Store, "_read", read)
            cached(tmp_path / "c.zarr", expand(shards), teacher, views=6)
        return found

    monkeypatch.setattr(Store, "_read", read_and_fill)
    np.testing.assert_array_equal(reader.cycle(0).check, store.cycle(0).check)
